"""What is run in an environment that has the package installed: ``python smoke.py base``, ``whole`` or ``client``.

It imports nothing of the tests, which are not installed.
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import pathlib
import subprocess
import sys

import numpy as np


def tfvae(*arguments: str, code: int = 0) -> str:
    """What the command prints."""
    done = subprocess.run([sys.executable, "-m", "tfvae", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == code, f"tfvae {arguments} ended with {done.returncode}:\n{said}"
    return said


def base() -> None:
    """A model trains, is saved, exported and checked without any extra; what needs one says which."""
    for absent in ("apache_beam", "pyarrow", "matplotlib", "sklearn", "tensorflow_datasets"):
        assert importlib.util.find_spec(absent) is None, absent
    assert "tfvae[pipelines]" in tfvae("prepare", "--source", "digits", "--output", "prepared", code=1)
    assert "tfvae[quickstart]" in tfvae("quickstart", code=1)
    model()
    assert "FAILED" not in tfvae("check-export", "exported")


def model() -> None:
    """Six lines of Keras, and that what was saved and exported gives what the model gives."""
    import keras
    import tensorflow as tf

    import tfvae

    assert tfvae.__version__ == importlib.metadata.version("tfvae")
    x = np.random.default_rng(0).integers(0, 2, [256, 6]).astype(np.float32)
    posterior, likelihood = tfvae.DistributionLayer("Normal", [2]), tfvae.DistributionLayer("Bernoulli", [6])
    vae = tfvae.VAE(tfvae.networks.mlp([8]), tfvae.networks.mlp([8]), posterior, likelihood)
    vae.compile(keras.optimizers.Adam(1e-2))
    history = vae.fit(x, batch_size=64, epochs=20, verbose=0).history["elbo"]
    assert -6 * np.log(2) - 1 < history[-1] < 0 and history[-1] > history[0], history  # nats; 6 fair coins are -4.16
    vae.save("vae.keras")
    np.testing.assert_array_equal(keras.models.load_model("vae.keras").embed(x), vae.embed(x))
    tfvae.export(vae, "exported")
    served = tf.saved_model.load("exported/1").signatures["embed"](x=tf.constant(x))
    np.testing.assert_allclose(served["embedding"], vae.embed(x), atol=1e-5)


def whole() -> None:
    """The quickstart's numbers, in a folder of a strange name, and both jobs by the names that they have here."""
    said = tfvae("quickstart", "--output", "日本 ı")
    measured = json.loads((pathlib.Path("日本 ı") / "quickstart.json").read_text(encoding="utf-8"))
    assert measured["rows_embedded"] == 1797 and "test ELBO" in said
    assert -23 < measured["test_elbo"] <= measured["test_log_marginal"] + 0.5 < -15, measured
    assert "Usage: python -m tfvae embed" in tfvae("embed", "--help")
    line = [sys.executable, "-m", "tfvae.pipelines.preprocess", "--source", "digits", "--output", "again"]
    done = subprocess.run([*line, "--direct_num_workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode(errors="replace")
    model()


def client() -> None:
    """The client's names, and no more than it needs."""
    import tfvae_client

    for absent in ("tensorflow", "keras", "apache_beam", "tfvae"):
        assert importlib.util.find_spec(absent) is None, absent
    with contextlib.redirect_stdout(io.StringIO()), tfvae_client.Client("http://localhost:1", "m", retries=0) as asked:
        try:
            asked.embed(np.zeros([1, 2], np.float32))
        except tfvae_client.ServingError as error:
            assert "rows 0 to 0" in str(error) or error.code


if __name__ == "__main__":
    {"base": base, "whole": whole, "client": client}[sys.argv[1]]()
