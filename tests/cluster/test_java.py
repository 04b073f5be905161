"""An export, read by TensorFlow Java: the program that ``docs/howto/runtimes.md`` shows, run as it stands there."""

import re
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import tfvae
from tests.cluster import jars
from tests.cluster.processes import ROOT

pytestmark = pytest.mark.cluster


@pytest.fixture
def embed(workshop, java):
    """Runs the page's program on some rows."""
    (program,) = re.findall(r"^```java\n(.*?)^```", (ROOT / "docs/howto/runtimes.md").read_text(), re.M | re.S)
    (workshop / "Embed.java").write_text(program)
    library = f"-Dorg.bytedeco.javacpp.cachedir={jars.CACHE.parent / 'javacpp'}"  # 600 MB, unpacked once
    path = ":".join(map(str, jars.fetch("tensorflow")))

    def run(model: str, x: np.ndarray) -> subprocess.CompletedProcess:
        x.tofile(workshop / "x.f32")
        line = [java, "-XX:-UsePerfData", library, "-cp", path, "Embed.java", model, "x.f32"]
        return subprocess.run(line, cwd=workshop, capture_output=True, text=True, timeout=300)

    return run


def test_a_jvm_embeds_as_python_does_and_refuses_what_it_refuses(workshop, embed):
    images = np.round(load_digits().images[..., None] * 255 / 16).astype("uint8")
    vae = tfvae.VAE(
        tfvae.networks.mlp([100]),
        tfvae.networks.mlp([100]),
        tfvae.posteriors.diagonal_normal(4),
        tfvae.likelihoods.bernoulli([8, 8, 1]),
        seed=0,
    )
    vae.compile()
    vae.fit(images, epochs=1, verbose=0)
    model = tfvae.export(vae, str(workshop / "java" / "digits"))
    x = images.astype("float32") / 255

    run = embed(model, x)
    assert run.returncode == 0, run.stderr
    found = np.array(run.stdout.split(), "float32").reshape(-1, 4)
    expected = tf.saved_model.load(model).signatures["embed"](x=x)["embedding"]
    assert np.std(expected, axis=0).min() > 0.01  # each row is seen to have its own
    np.testing.assert_allclose(found, expected, atol=1e-6)

    x[3, 4, 5, 0] = np.nan
    run = embed(model, x)
    assert run.returncode == 1 and "NaN" in run.stderr and not run.stdout
