"""How a family is found and made known."""

import pytest
from tensorflow_probability import distributions as tfd

from tfvae import families


def test_a_family_must_be_known_and_its_name_free():
    with pytest.raises(ValueError, match=r"families\.register"):
        families.find("Nope")
    with pytest.raises(ValueError, match="already"):
        families.register(type("Rayleigh", (tfd.Weibull,), {}))
    with pytest.raises(ValueError, match="no class of distributions"):
        families.register(dict)
    with pytest.raises(ValueError, match="whole number"):
        families.Erlang(1.5, 1.0)
