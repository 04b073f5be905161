"""The models of Figure 2's table as files that a release can carry.

    tfvae reproduce aevb-models --samples 1e7

They share the figures' checkpoints: what has been trained as far already is written at once.
"""

import gzip
import importlib.metadata
import os
import pathlib
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from typing import Any, Literal

from tfvae.experiments import checkpoints, curves
from tfvae.experiments.aevb import figure2, settings
from tfvae.experiments.paper_figure import check_names
from tfvae.exporting import saved_model
from tfvae.exporting.provenance import Dataset, Measured, Provenance
from tfvae.models.vae import VAE
from tfvae.pipelines import contract, storage
from tfvae.sharing.files import SUMS, checksums

FOLDER, LICENSE = "models", "apache-2.0"
_OBSERVATIONS = {"mnist": "Bernoulli, greyscale (not binarised)", "frey": "Normal, grey levels / 256"}


def models(
    output: str = "runs/aevb",
    data_dir: str = "data",
    datasets: Sequence[Literal["mnist", "frey"]] = ("mnist", "frey"),
    latent_dims: Sequence[int] = (),
    samples: int = 10_000_000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """AEVB's models of Figure 2 as assets of a release, in ``output/models``.

    Of each model ``aevb-<dataset>-<size of z>.keras``, ``.tar.gz`` with the SavedModel, and ``.md``, its card; beside
    them ``LICENSE`` and, written last, ``SHA256SUMS`` of all that is there.

    Args:
        output: The folder to write; models are taken from, or else trained and kept under, ``output/checkpoints``.
        data_dir: Holds ``mnist/`` with the four IDX files and ``freyface/frey_faces.npy``.
        datasets: Some of ``mnist`` and ``frey``.
        latent_dims: Sizes of z; the paper's for each dataset by default.
        samples: Samples evaluated to which a model is trained, if it has not gone so far or further already.
        seed: Fixes weights, shuffles and noise.

    Returns:
        A row for each model as in ``figure2.figure2``, and its name.

    Raises:
        ValueError: For an unknown dataset, or fewer samples than the paper's first point.
    """
    check_names(datasets, settings.DATASETS)
    folder = pathlib.Path(output) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for dataset in datasets:
        data = settings.load(dataset, data_dir)
        for latent_dim in latent_dims or data.latent_dims:
            curve = curves.Curve(dataset, latent_dim, "AEVB")
            point = curve.follow(data, samples, output, seed)[-1]
            vae = curves.vae_of(checkpoints.load(checkpoints.place(output, curve.name, seed)))
            name = f"aevb-{dataset}-{latent_dim}"
            _write(vae, folder, name, _provenance(dataset, data, point))
            row = figure2.FIGURE.row((dataset, latent_dim, "AEVB"), point, "test")
            rows.append(row | {"model": name})
    _finish(folder)
    return rows


def _provenance(dataset: str, data: settings.Data, point: checkpoints.Point) -> Provenance:
    known = Dataset(name=dataset)
    measured = Measured(known, "test", _OBSERVATIONS[dataset], len(data.test), elbo=point.test)
    return Provenance(known, measured, LICENSE)


def _write(trained: VAE, folder: pathlib.Path, name: str, known: Provenance) -> None:
    """Each file takes its name when it is whole."""
    vae = VAE.from_config(trained.get_config())  # without the optimiser, whose slots are as large again
    vae.set_weights(trained.get_weights())
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as made:
        draft = pathlib.Path(made)
        vae.save(draft / f"{name}.keras")
        version = pathlib.Path(saved_model.export(vae, draft / name, 1, provenance=known))
        shutil.copyfile(version / contract.EXTRA / contract.MODEL_CARD, draft / f"{name}.md")
        _pack(draft / name, draft / f"{name}.tar.gz")
        for ending in ("keras", "md", "tar.gz"):
            os.replace(draft / f"{name}.{ending}", folder / f"{name}.{ending}")


def _pack(folder: pathlib.Path, archive: pathlib.Path) -> None:
    """The folder in a form that says nothing of when and by whom it was written."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime = member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with (
        open(archive, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder.parent).as_posix(), recursive=False, filter=plain)


def _finish(folder: pathlib.Path) -> None:
    installed = importlib.metadata.distribution("tfvae")
    text = installed.read_text("licenses/LICENSE") or installed.read_text("LICENSE")  # by the age of setuptools
    root = pathlib.Path(__file__).parents[3] / "LICENSE"  # of a checkout
    text = text or (root.read_text(encoding="utf-8") if root.exists() else None)
    if text is None:
        raise ValueError("tfvae's LICENSE is not beside the package: install the wheel again.")
    (folder / "LICENSE").write_text(text, encoding="utf-8")
    found = {path.name: path for path in folder.iterdir() if path.is_file() and path.name != SUMS}
    with storage.replacing(str(folder / SUMS), str(folder / ".work")) as file:
        file.write(checksums(found))
    shutil.rmtree(folder / ".work")
