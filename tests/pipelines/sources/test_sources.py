"""Kinds of sources by name."""

import pytest

from pipelines.errors import PipelineError
from pipelines.sources import make_source


@pytest.mark.parametrize("kind", ["mnist", "tfds", "idx:x", ""])
def test_unknown_kinds(kind):
    with pytest.raises(PipelineError, match="unknown source"):
        make_source(kind, "x")


def test_an_input_that_is_not_there(tmp_path):
    for kind in ("idx", "npy", "images"):
        with pytest.raises(PipelineError, match="gone"):
            make_source(kind, str(tmp_path / "gone")).plan()
        with pytest.raises(PipelineError, match="--input"):
            make_source(kind, None)
