"""A run: one training of one model on one dataset, as a directory.

runs/NAME/model.keras      the trained model
runs/NAME/history.csv      loss, ELBO, log p(x|z) and KL of each epoch, in nats
runs/NAME/run.json         what was asked for: experiment, options, data, versions, time
runs/NAME/logs/            for TensorBoard, where it is installed
runs/NAME/evaluation.json  written by ``evaluate``
runs/NAME/incomplete/      a training that goes on, or was killed: the run above is whole until that ends
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import stat
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfvae import data, evaluation, families, observations
from tfvae.callbacks import ProgressBar, StopAtNaN
from tfvae.exporting.provenance import Dataset, Measured, Provenance
from tfvae.models.vae import VAE
from tfvae.pipelines import storage
from tfvae.presets import EXPERIMENTS

PathLike = str | os.PathLike[str]

_IN_MEMORY_BYTES = 2 << 30  # a split beyond this is streamed from disk
_PLOTTED_ROWS = 10_000
_FILES = ("logs", "history.csv", "model.keras", "run.json")
_LARGEST_RECORD = 1 << 20  # bytes
_MEASURED = [field.name for field in dataclasses.fields(Measured) if field.name != "dataset"]


def train(
    data_directory: PathLike,
    output: PathLike,
    experiment: str = "mlp",
    epochs: int | None = None,
    batch_size: int | None = None,
    latent_dim: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train an experiment's model on a prepared dataset and write the run; returns what ``run.json`` holds.

    Options left at None take the experiment's defaults. The split ``validation``, or ``test`` where there is none, is
    evaluated after each epoch for the learning curve; nothing is chosen by it. A run that is being replaced is whole
    until the new one is; what an interrupted training leaves is removed.

    Raises:
        ValueError: For an unknown experiment, or an output that holds a run already or is being written.
        FloatingPointError: If the loss or a weight turns NaN: see ``callbacks.StopAtNaN``. No model is written.
    """
    if experiment not in EXPERIMENTS:
        raise ValueError(f"There is no experiment {experiment!r}, only {', '.join(EXPERIMENTS)}.")
    output = pathlib.Path(output)
    if (output / "model.keras").exists() and not overwrite:
        raise ValueError(f"{output} holds a run already: choose another output or pass --overwrite.")
    chosen = EXPERIMENTS[experiment]
    epochs, batch_size = epochs or chosen.epochs, batch_size or chosen.batch_size
    latent_dim, learning_rate = latent_dim or chosen.latent_dim, learning_rate or chosen.learning_rate
    info = data.open_dataset(data_directory).info
    keras.utils.set_random_seed(seed)
    vae = chosen.build(info.features["x"].shape, latent_dim, seed)
    vae.compile(optimizer=keras.optimizers.Adam(learning_rate))
    x, validation = (
        _observations(data_directory, info, split, batch_size)
        for split in ("train", "validation" if "validation" in info.splits else "test")
    )
    rows = info.splits["train"].num_examples
    record: dict[str, Any] = {
        "experiment": experiment,
        "epochs": epochs,
        "batch_size": batch_size,
        "latent_dim": latent_dim,
        "learning_rate": learning_rate,
        "seed": seed,
        "data": os.path.abspath(data_directory),
        "dataset": data.identity(data_directory),
        "likelihood": vae.likelihood.family.__name__,
        "rows": rows,
        "versions": {name: importlib.metadata.version(name) for name in ("tfvae", "tensorflow", "keras")},
    }
    with _replacing(output) as folder:
        started = time.perf_counter()
        vae.fit(
            x,
            batch_size=batch_size,
            epochs=epochs,
            validation_data=validation,
            verbose=0,
            callbacks=[
                ProgressBar(),
                keras.callbacks.CSVLogger(str(folder / "history.csv")),
                *_tensorboard(folder / "logs"),
                StopAtNaN(),
            ],
        )
        seconds = time.perf_counter() - started
        record |= {"seconds": round(seconds, 2), "rows_per_second": round(rows * epochs / seconds)}
        vae.save(folder / "model.keras")
        record["model_sha256"] = storage.sha256(str(folder / "model.keras"))
        _write_json(folder / "run.json", record)
    return record


@contextlib.contextmanager
def _replacing(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder for a new run, whose files take the places of the old run's if the block ends well.

    The last file says by the model's checksum whether the others belong to it, should the machine die in between.
    """
    folder = output / "incomplete"
    folder.mkdir(parents=True, exist_ok=True)
    with storage.locked(str(folder / "lock")) as mine:
        if not mine:
            raise ValueError(f"Another training writes to {output}: wait for its end, or choose another output.")
        for earlier in _FILES:  # of a training that was killed
            _remove(folder / earlier)
        try:
            yield folder
            (output / "evaluation.json").unlink(missing_ok=True)  # of the run that this one replaces
            for name in _FILES:
                _remove(output / name)
                if (folder / name).exists():
                    os.replace(folder / name, output / name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _observations(directory: PathLike, info: Any, split: str, batch_size: int) -> Any:
    """x in memory where it fits, else as a stream; None where there is no such split."""
    if split not in info.splits:
        return None
    spec = info.features["x"]
    size = info.splits[split].num_examples * int(np.prod(spec.shape)) * np.dtype(spec.np_dtype).itemsize
    if size <= _IN_MEMORY_BYTES:
        return data.load(directory, split)
    return data.stream(directory, split, batch_size, shuffle=split == "train")


def load(run: PathLike) -> VAE:
    """The trained model of a run; of a baseline that was saved by hand, the VAE that it trained.

    Raises:
        ValueError: If the directory holds no finished run.
    """
    model = keras.saving.load_model(_model_file(run))
    return getattr(model, "vae", model)


def _model_file(run: PathLike) -> pathlib.Path:
    path = pathlib.Path(run) / "model.keras"
    if not path.exists():
        raise ValueError(f"{run} is no finished run: it has no model.keras. Train one with tfvae train.")
    return path


def provenance(run: PathLike) -> Provenance:
    """What the run's own records say of the data and the measurements of its model, for ``tfvae.export``.

    A record that is absent, or was written for another model than the one that lies there now, says nothing.

    Raises:
        ValueError: If the directory holds no finished run, or a record that cannot be read.
    """
    model = _model_file(run)
    model_sha256 = storage.sha256(str(model))
    trained, measured = (_record(model.with_name(name), model_sha256) for name in ("run.json", "evaluation.json"))
    facts = {name: measured[name] for name in _MEASURED if name in measured}
    try:
        return Provenance(_dataset(trained), Measured(_dataset(measured), **facts))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the records of {run} cannot be read: {error}") from error


def _dataset(record: dict[str, Any]) -> Dataset:
    return Dataset(**record.get("dataset", {}))


def _record(path: pathlib.Path, model_sha256: str) -> dict[str, Any]:
    """A JSON record of a run, if it is of that model; else an empty one."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_RECORD:
            raise ValueError(f"{path} is no plain file of at most {_LARGEST_RECORD} bytes: train or evaluate again.")
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds a JSON {type(record).__name__}, expected an object: train or evaluate again.")
    return record if record.get("model_sha256") == model_sha256 else {}


def evaluate(
    run: PathLike,
    data_directory: PathLike,
    num_samples: int = 5000,
    split: str = "test",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure a run on a split, and write the result to ``evaluation.json``; all bounds in nats.

    ``progress`` is called with the rows done and their total while log p(x) is estimated.
    """
    vae = load(run)
    model_sha256 = storage.sha256(str(_model_file(run)))
    x = data.load(data_directory, split)
    means = vae.evaluate(x, return_dict=True, verbose=0)
    started = time.perf_counter()
    report = (lambda done: progress(done, len(x))) if progress else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the result says it
        marginal = evaluation.log_marginal(vae, x, num_samples, seed=seed, progress=report)
    result = {
        "model_sha256": model_sha256,
        "dataset": data.identity(data_directory),
        "split": split,
        "rows": len(x),
        "observations": _observation_kind(vae, x),
        "elbo": means["elbo"],
        "log_likelihood": means["log_likelihood"],
        "kl": means["kl"],
        "num_samples": num_samples,
        "log_marginal": marginal.mean,
        "log_marginal_standard_error": marginal.mean_standard_error,
        "monte_carlo_standard_error": _monte_carlo_error(marginal),
        "median_effective_sample_size": float(np.median(marginal.effective_sample_size)),
        "median_pareto_shape": marginal.median_pareto_shape,
        "active_units": evaluation.active_units(vae, x),
        "seconds": round(time.perf_counter() - started, 2),
    }
    _write_json(pathlib.Path(run) / "evaluation.json", result)
    return result


def _monte_carlo_error(marginal: evaluation.MarginalEstimate) -> float | None:
    """What other samples of z would move the mean of log p(x) by; None where that cannot be told."""
    if not marginal.is_trusted:
        return None
    return float(np.sqrt(np.sum(marginal.standard_error**2)) / len(marginal.standard_error))


def _observation_kind(vae: VAE, x: np.ndarray) -> str:
    """How x is scored: bounds on binarised and on greyscale images must never be compared."""
    family = vae.likelihood.family.__name__
    facts = vae.likelihood.facts
    if vae.noise is not None:
        return f"{family}, of draws by {type(vae.noise).__name__}"
    if facts is None or facts.support is not families.facts.BINARY:
        return f"{family}, real values" if observations.is_picture(vae.likelihood) else family
    high = 255 if x.dtype == np.uint8 else 1
    return f"{family}, binarised" if np.isin(x, (0, high)).all() else f"{family}, greyscale (not binarised)"


def _tensorboard(logs: pathlib.Path) -> list[keras.callbacks.Callback]:
    return [keras.callbacks.TensorBoard(str(logs))] if importlib.util.find_spec("tensorboard") else []


def plot(
    run: PathLike,
    output: PathLike,
    data_directory: PathLike | None = None,
    split: str = "test",
    projector: bool = False,
) -> list[str]:
    """Draw what a run's model has learned, and its learning curve, as PNG; returns the paths.

    The rows come from the dataset that the run was trained on, or from ``data_directory``. A run without a history,
    such as a model that was saved by hand, has no learning curve. With ``projector`` the folder ``projector`` is
    written too, for ``tensorboard --logdir``.

    Raises:
        ValueError: If the directory holds no finished run, or nothing says which data to draw.
    """
    from tfvae import plots  # here alone: training draws nothing

    run, output = pathlib.Path(run), pathlib.Path(output)
    vae = load(run)
    rows, labels, names = _plotted(vae, data_directory or _trained_on(run), split)
    paths = []
    if (run / "history.csv").exists():
        paths.append(plots.learning_curve(run / "history.csv", output / "learning_curve.png"))
    paths.append(plots.latent_space(vae, rows, output / "latent_space.png", labels, names))
    paths.append(plots.kl_by_unit(vae, rows, output / "kl_by_unit.png"))
    if len(vae.event_shape) >= 2:
        condition = np.resize(rows["condition"], [100, *vae.condition_shape]) if vae.condition_shape else None
        paths.append(plots.samples(vae, output / "samples.png", condition=condition))
        for draw in (plots.reconstructions, plots.traversals, plots.interpolations):
            paths.append(draw(vae, rows, output / f"{draw.__name__}.png"))
    elif len(vae.event_shape) == 1:
        paths.append(plots.residuals(vae, rows, output / "residuals.png"))
    return paths + ([plots.projector(vae, rows, output / "projector", labels, names)] if projector else [])


def _plotted(vae: VAE, source: PathLike, split: str) -> tuple[dict[str, np.ndarray], np.ndarray | None, Sequence[str]]:
    """The first rows of a split as the model takes them, their labels and what those are called."""
    features = data.open_dataset(source).info.features
    parts = ["x"] + ["condition"] * (vae.condition_shape is not None) + ["label"] * ("label" in features)
    rows = {name: part[:_PLOTTED_ROWS] for name, part in data.load(source, split, parts).items()}
    labels = rows.pop("label", None)
    names = getattr(features["label"], "names", None) or () if labels is not None else ()
    return rows, labels, names


def _trained_on(run: pathlib.Path) -> str:
    """The dataset that a run was trained on."""
    record = run / "run.json"
    if not record.exists():
        raise ValueError(f"{run} has no run.json, which says what it was trained on: name a dataset with --data.")
    return json.loads(record.read_text(encoding="utf-8"))["data"]


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    with storage.replacing(str(path), str(path.parent)) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")
