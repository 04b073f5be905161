"""A version in an object store is there whole or not at all, and the same export as on this machine."""

import pytest

import tfvae
from pipelines.embedding.saved_models import find_model
from tests.exporting.test_saved_model import image_model
from tfvae.exporting import versions
from tfvae.pipelines import storage
from tfvae.pipelines.verify import verify


@pytest.mark.slow
@pytest.mark.parametrize("store", ["bucket", "google_bucket"])
def test_an_export_to_a_store(store, tmp_path, monkeypatch, request):
    bucket = request.getfixturevalue(store)
    vae, base = image_model("mlp"), f"{bucket.address}/models/mnist"
    path = tfvae.export(vae, tmp_path / "mnist", warmup_batch_sizes=[1])
    assert tfvae.export(vae, base, warmup_batch_sizes=[1]) == f"{base}/1"
    assert {key.removeprefix("models/mnist/1/") for key in bucket.keys("models/")} == set(storage.files_below(path))
    assert not verify(base).damaged and find_model(base).version == 1
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage, "replacing", dying(storage.replacing, "saved_model.pb"))
        tfvae.export(vae, base, warmup_batch_sizes=[1])
    assert any(key.startswith("models/mnist/2/") for key in bucket.keys("models/"))
    assert versions.existing_in_store(base) == [1] and find_model(base).version == 1
    bucket.put("models/mnist/2/of-the-dead", b"1")
    assert tfvae.export(vae, base, warmup_batch_sizes=[1]) == f"{base}/2"
    assert not verify(base).damaged and find_model(base).version == 2
    assert not any("of-the-dead" in key or "_lock" in key for key in bucket.keys("models/"))
    with pytest.raises(ValueError, match=r"Version 2 of (s3|gs)://.* exists already"):
        tfvae.export(vae, base, version=2)
    with pytest.raises(ValueError, match="holds versions in the format saved_model"):
        tfvae.export(vae, base, format="litert")


def dying(replacing, at: str):
    """The same, but that the process is stopped before a file of that name."""

    def either(path: str, *arguments, **named):
        if storage.is_address(path) and path.endswith(at):
            raise KeyboardInterrupt
        return replacing(path, *arguments, **named)

    return either
