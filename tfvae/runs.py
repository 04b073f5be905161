"""A run: one training of one model on one dataset, as a directory.

runs/NAME/model.keras      the trained model
runs/NAME/history.csv      loss, ELBO, log p(x|z) and KL of each epoch, in nats
runs/NAME/run.json         what was asked for: model, options, data, versions, time
runs/NAME/config.toml      the same as flags, for ``tfvae train --config``
runs/NAME/model.py         the file that a model of one's own was built by
runs/NAME/logs/            for TensorBoard, where it is installed
runs/NAME/checksums.json   every file with its SHA-256, for ``tfvae verify``
runs/NAME/evaluation.json  written by ``evaluate``
runs/NAME/incomplete/      a training that goes on, or was stopped: its checkpoints, from which the same command goes on
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shlex
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfvae import (
    configuration,
    data,
    evaluation,
    families,
    model_file,
    observations,
    records,
    run_folder,
    strategies,
)
from tfvae.arguments import check_at_least, check_number, check_path
from tfvae.callbacks import BitsPerDimension, Checkpoint, ProgressBar, StopAtNaN
from tfvae.engine import keras_private
from tfvae.exporting.provenance import Dataset, Measured, Provenance
from tfvae.model_file import ModelFile
from tfvae.models.vae import VAE
from tfvae.pipelines import checksums, contract, storage
from tfvae.presets import EXPERIMENTS, Experiment

PathLike = str | os.PathLike[str]

_IN_MEMORY_BYTES = 2 << 30  # a split beyond this is streamed from disk
_PLOTTED_ROWS = 10_000
_MEASURED = [field.name for field in dataclasses.fields(Measured) if field.name != "dataset"]


def train(
    data_directory: PathLike,
    output: PathLike,
    model: str = "mlp",
    epochs: int | None = None,
    batch_size: int | None = None,
    latent_dim: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    patience: int | None = None,
    resume: bool = False,
    strategy: str | None = None,
) -> dict[str, Any]:
    """Train a model on a prepared dataset and write the run; returns what ``run.json`` holds.

    ``model`` is one of ``presets.EXPERIMENTS``, or FILE.py:FUNCTION. That file is run, and its function is called with
    what it has parameters for of ``event_shape``, ``condition_shape``, ``rows``, ``data`` (the dataset's folder),
    ``latent_dim`` and ``seed``. It returns a ``VAE``, compiled or not; the run keeps a copy of the file.

    Options left at None take the model's defaults. The split ``validation``, or ``test`` where there is none, is
    evaluated after each epoch for the learning curve. Nothing is chosen by it, unless there is ``patience``: the
    training then ends when its ELBO has not risen for so many epochs, and the run has the weights of the best one.

    A run that is being replaced is whole until the new one is. A training that is interrupted keeps checkpoints, see
    ``callbacks.Checkpoint``: the same call goes on with it, exactly. With ``resume`` a finished run of the same call is
    left as it is, and its record returned.

    ``strategy`` is "mirrored" for the graphics cards of this machine, or "workers" for several processes, of which each
    calls this and TF_CONFIG says which one it is; the output is a folder that all of them see, and the first one writes
    it. A batch is that of all of them together. See ``strategies``.

    Raises:
        ValueError: For an unknown model, a file that fails, or an output that holds a run already, is being written,
            holds an interrupted training of other options or data and ``overwrite`` is not given, or holds a file
            ``model.py`` or ``config.toml`` that is of no run.
        FloatingPointError: If the loss or a weight turns NaN: see ``callbacks.StopAtNaN``. No model is written.
        ConnectionError: If another worker is gone. The same call goes on, once all are started again.
    """
    check_path(output=output)
    check_path(in_stores=True, data=data_directory)
    for path in (output, data_directory):
        storage.refuse_other_encodings(path)
    _check_numbers(learning_rate, seed)
    output = pathlib.Path(output)
    devices = strategies.strategy(strategy)
    writes = keras_private.is_first(devices)
    if writes:
        run_folder.settle(output)
    strategies.meet(devices)
    is_done = resume and not overwrite and (output / run_folder.MODEL).exists()
    if not is_done:
        run_folder.check(output, overwrite)
    keras.utils.set_random_seed(seed)
    chosen, file = _chosen(model)
    epochs, batch_size = epochs or chosen.epochs, batch_size or chosen.batch_size
    info = data.open_dataset(data_directory).info
    with keras.saving.custom_object_scope(file.names if file else {}), strategies.workers_that_stay():
        with devices.scope():
            vae = _built(chosen, file, info, data_directory, latent_dim, seed)
            learning_rate = _compile(vae, learning_rate, chosen)
        x, validation = (
            _observations(vae, data_directory, info, split, batch_size)
            for split in ("train", "validation" if "validation" in info.splits else "test")
        )
        rows = info.splits["train"].num_examples
        record: dict[str, Any] = {
            "model": f"{run_folder.COPY}:{file.function}" if file else model,
            "model_file": {"name": file.path.name, "sha256": file.sha256} if file else None,
            "epochs": epochs,
            "batch_size": batch_size,
            "latent_dim": vae.latent_dim,
            "learning_rate": learning_rate,
            "patience": patience,
            "seed": seed,
            "data": storage.absolute(data_directory),
            "dataset": data.identity(data_directory),
            "likelihood": vae.likelihood.family.__name__,
            "rows": rows,
            "versions": {name: importlib.metadata.version(name) for name in ("tfvae", "tensorflow", "keras")},
        }
        if is_done:
            return _finished(output, record)
        if patience and validation is None:
            raise ValueError(f"patience is {patience}, but {data_directory} has no split validation or test to watch.")
        with run_folder.replacing(output, record, overwrite) if writes else _of_first(output) as folder:
            strategies.meet(devices)  # what another training had left is gone
            checkpoint = Checkpoint(folder / run_folder.CHECKPOINTS)
            with _naming_models(chosen):
                history = vae.fit(
                    x,
                    batch_size=batch_size,
                    epochs=epochs,
                    validation_data=validation,
                    verbose=0,
                    callbacks=[
                        *([ProgressBar()] if writes else []),
                        *_bits(vae),
                        *([keras.callbacks.CSVLogger(str(folder / "history.csv"))] if writes else []),
                        *(_tensorboard(folder / "logs") if writes else []),
                        *_early_stopping(patience),
                        checkpoint,
                        StopAtNaN(),
                    ],
                )
            seconds, done = checkpoint.seconds, len(history.epoch)
            record |= {"epochs_trained": done} if patience else {}
            record["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            record |= {"seconds": round(seconds, 2), "rows_per_second": round(rows * done / seconds)}
            if not writes:
                return record
            vae.save(folder / "model.keras")
            record["model_sha256"] = storage.sha256(str(folder / "model.keras"))
            if file:
                (folder / run_folder.COPY).write_bytes(file.source)
            given = latent_dim if file else vae.latent_dim
            flags = _configuration(record, given).encode("utf-8", "surrogateescape")  # a path may be any bytes
            (folder / configuration.NAME).write_bytes(flags)
            _write_json(folder / records.RUN, record)
    return record


@contextlib.contextmanager
def _naming_models(chosen: Experiment) -> Iterator[None]:
    """Within it, what a likelihood of pixels says of real values names the model that takes them."""
    try:
        yield
    except ValueError as error:
        of_pixels = [one for name, one in EXPERIMENTS.items() if name != "gaussian-mlp"]
        if chosen not in of_pixels or " likelihood scores " not in str(error):
            raise
        raise ValueError(
            f"{error} Of the models here gaussian-mlp takes real values (--model), and prepare --standardize brings "
            "the columns of a table to one scale for it."
        ) from error


def _check_numbers(learning_rate: float | None, seed: int) -> None:
    check_number(0, is_open=True, learning_rate=1.0 if learning_rate is None else learning_rate)
    check_at_least(0, most=2**32 - 1, seed=seed)  # Keras's, of which NumPy's and Python's are made


def _of_first(output: pathlib.Path) -> contextlib.nullcontext[pathlib.Path]:
    """The folder that the first worker writes, for the others to read its checkpoints."""
    return contextlib.nullcontext(output / run_folder.INCOMPLETE)


def _finished(output: pathlib.Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The record of the run that is there, if it is of what is asked for."""
    record = records.read(output / records.RUN)
    if odd := run_folder.differences(record, asked):
        raise ValueError(
            f"{output} holds a run of another command ({'; '.join(odd)}): choose another output or pass --overwrite."
        )
    return record


def _early_stopping(patience: int | None) -> list[keras.callbacks.Callback]:
    if not patience:
        return []
    return [keras.callbacks.EarlyStopping("val_elbo", mode="max", patience=patience, restore_best_weights=True)]


def _configuration(record: dict[str, Any], latent_dim: int | None) -> str:
    """What was asked for as flags; the file lies in the run, whose folder is the output."""
    flags = {"data": record["data"], "output": ".", "model": record["model"], "latent-dim": latent_dim}
    flags |= {
        name.replace("_", "-"): record[name] for name in ("epochs", "batch_size", "learning_rate", "seed", "patience")
    }
    return configuration.text(flags, "tfvae train --config THIS_FILE --output ANOTHER_RUN trains the same once more.")


def _chosen(model: str) -> tuple[Experiment, ModelFile | None]:
    """A preset, or the user's own file with the settings that an experiment has by default."""
    if model in EXPERIMENTS:
        return EXPERIMENTS[model], None
    if not model_file.names_a_file(model):
        raise ValueError(
            f"There is no model {model!r}, only {', '.join(EXPERIMENTS)}, or one of your own, FILE.py:build."
        )
    file = model_file.read(model)
    return Experiment(model, file.build), file


def _built(
    chosen: Experiment, file: ModelFile | None, info: Any, directory: PathLike, latent_dim: int | None, seed: int
) -> VAE:
    event_shape, missing = tuple(info.features["x"].shape), data.has_missing(directory)
    if file is None:
        return chosen.build(event_shape, latent_dim or chosen.latent_dim, seed, missing)
    if latent_dim is not None and "latent_dim" not in file.parameters:
        raise ValueError(f"--latent-dim is {latent_dim}, but {file.function} of {file.path} has no such parameter.")
    vae = file.build(
        event_shape=event_shape,
        condition_shape=tuple(info.features["condition"].shape) if "condition" in info.features else None,
        rows=info.splits["train"].num_examples,
        missing=missing,
        data=os.fspath(directory),
        latent_dim=latent_dim,
        seed=seed,
    )
    if tuple(vae.event_shape) != event_shape:
        raise ValueError(
            f"{file.function} of {file.path} returned a model of observations {tuple(vae.event_shape)}, but those of "
            f"{directory} are {event_shape}: make its likelihood of event_shape."
        )
    return vae


def _compile(vae: VAE, learning_rate: float | None, chosen: Experiment) -> float | None:
    """Compiles a model that is not; returns the learning rate, None of a model that came with an optimiser."""
    if not vae.compiled:
        learning_rate = learning_rate or chosen.learning_rate
        vae.compile(optimizer=keras.optimizers.Adam(learning_rate))
    elif learning_rate is not None:
        raise ValueError(f"--learning-rate is {learning_rate}, but the model was compiled by its file: say it there.")
    return learning_rate


def _parts(vae: VAE) -> str | list[str]:
    """The features of a dataset that a model takes."""
    return "x" if vae.condition_shape is None else ["x", "condition"]


def _observations(vae: VAE, directory: PathLike, info: Any, split: str, batch_size: int) -> Any:
    """The rows in memory where they fit, else as a stream; None where there is no such split."""
    if split not in info.splits:
        return None
    spec = info.features["x"]
    size = info.splits[split].num_examples * int(np.prod(spec.shape)) * np.dtype(spec.np_dtype).itemsize
    if size <= _IN_MEMORY_BYTES:
        return data.load(directory, split, _parts(vae))
    return data.stream(directory, split, batch_size, shuffle=split == "train", features=_parts(vae))


def load(run: PathLike, model: str | None = None) -> VAE:
    """The trained model of a run; of a baseline that was saved by hand, the VAE that it trained.

    ``model`` is the Python file that defines classes of the model's own; it is run. No code of the run's folder is run
    unless it is named here: RUN/model.py is the file that the run was trained with.

    Raises:
        ValueError: If the directory holds no finished run, or its model has classes that nothing defines, or the file
            is not as it was when the run was trained.
    """
    path = _model_file(run)
    names = _own_names(path.parent, model) if model else {}
    try:
        with keras.saving.custom_object_scope(names):
            loaded = keras.saving.load_model(path)
    except (TypeError, ValueError) as error:
        if (unknown := re.search(r"Could not locate (?:class|function) '([^']*)'", str(error))) is None:
            raise
        raise ValueError(_what_defines(unknown[1], path.parent, model)) from error
    return getattr(loaded, "vae", loaded)


def _own_names(run: pathlib.Path, model: str) -> dict[str, Any]:
    file = model_file.read(model)
    trained_with = records.read(run / records.RUN).get("model_file")
    if isinstance(trained_with, dict) and trained_with.get("sha256") != file.sha256:
        raise ValueError(
            f"{file.path} is not as it was when {run} was trained: name {run / run_folder.COPY}, if it is yours."
        )
    return file.names


def _what_defines(name: str, run: pathlib.Path, model: str | None) -> str:
    if model is not None:
        return f"{run} has a part {name}, which {model} does not define: name the file that does with --model."
    mine = run / run_folder.COPY
    if mine.exists():
        flag = f"--model {shlex.quote(str(mine))}"
        return f"{run} has a part {name} of its own: if you trust {mine} to be run as a program, add {flag}."
    return f"{run} has a part {name}, which is not of Keras or tfvae: name the file that defines it, --model FILE.py."


def _model_file(run: PathLike) -> pathlib.Path:
    check_path(run=run)
    run_folder.settle(pathlib.Path(run))
    path = pathlib.Path(run) / run_folder.MODEL
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
    trained, measured = (
        records.of_model(model.with_name(name), model_sha256) for name in (records.RUN, records.EVALUATION)
    )
    facts = {name: measured[name] for name in _MEASURED if name in measured}
    try:
        return Provenance(_dataset(trained), Measured(_dataset(measured), **facts))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the records of {run} cannot be read: {error}") from error


def _dataset(record: dict[str, Any]) -> Dataset:
    return Dataset(**record.get("dataset", {}))


def evaluate(
    run: PathLike,
    data_directory: PathLike,
    num_samples: int = 5000,
    split: str = "test",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    model: str | None = None,
    judges: Sequence[str] = (),
    judged: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure a run on a split, and write the result to ``evaluation.json``; all bounds in nats.

    ``progress`` is called with the rows done and their total while log p(x) is estimated; ``model`` is as in ``load``;
    ``judges`` are names that ``evaluation.judge`` takes, and ``judged`` is called with how many are done, and of how
    many, before the first and after each.
    """
    evaluation.judges.check_judges(judges)
    vae = load(run, model)
    _check_columns(run, data_directory)
    model_sha256 = storage.sha256(str(_model_file(run)))
    given = data.load(data_directory, split, _parts(vae))
    x = given["x"] if isinstance(given, dict) else given
    means = vae.evaluate(given, return_dict=True, verbose=0)
    started = time.perf_counter()
    report = (lambda done: progress(done, len(x))) if progress else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the result says it
        marginal = evaluation.log_marginal(vae, given, num_samples, seed=seed, progress=report)
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
        "active_units": evaluation.active_units(vae, given) if len(x) > 1 else None,
        **({"judges": _judged(vae, given, judges, seed, judged)} if judges else {}),
        "seconds": round(time.perf_counter() - started, 2),
    }
    _write_json(pathlib.Path(run) / records.EVALUATION, result)
    checksums.relist(os.fspath(run), contract.CHECKSUMS, records.EVALUATION)
    return result


def _judged(
    vae: VAE, rows: Any, names: Sequence[str], seed: int, judged: Callable[[int, int], None] | None
) -> dict[str, Any]:
    report = (lambda done: judged(done, len(names))) if judged else None
    if report:
        report(0)
    return evaluation.judge(vae, rows, names, seed, report)


def _monte_carlo_error(marginal: evaluation.MarginalEstimate) -> float | None:
    """What other samples of z would move the mean of log p(x) by; None where that cannot be told."""
    if not marginal.is_trusted:
        return None
    return float(np.sqrt(np.sum(marginal.standard_error**2)) / len(marginal.standard_error))


def _observation_kind(vae: VAE, x: np.ndarray) -> str:
    """How x is scored: bounds on binarised and on greyscale images must never be compared."""
    family = vae.likelihood.family.__name__ + (", of what is not missing" if vae.likelihood.missing else "")
    facts = vae.likelihood.facts
    if vae.noise is not None:
        return f"{family}, of draws by {type(vae.noise).__name__}"
    if facts is None or facts.support is not families.facts.BINARY:
        return f"{family}, real values" if observations.is_picture(vae.likelihood) else family
    high = 255 if x.dtype == np.uint8 else 1
    return f"{family}, binarised" if np.isin(x, (0, high)).all() else f"{family}, greyscale (not binarised)"


def _bits(vae: VAE) -> list[keras.callbacks.Callback]:
    """Bits per dimension in the history, where the model's nats have some."""
    try:
        evaluation.bits.level_width(vae)
    except ValueError:
        return []
    return [BitsPerDimension()]


def _tensorboard(logs: pathlib.Path) -> list[keras.callbacks.Callback]:
    return [keras.callbacks.TensorBoard(str(logs))] if importlib.util.find_spec("tensorboard") else []


def plot(
    run: PathLike,
    output: PathLike,
    data_directory: PathLike | None = None,
    split: str = "test",
    projector: bool = False,
    model: str | None = None,
) -> list[str]:
    """Draw what a run's model has learned, and its learning curve, as PNG; returns the paths.

    The rows come from the dataset that the run was trained on, or from ``data_directory``. A run without a history,
    such as a model that was saved by hand, has no learning curve. With ``projector`` the folder ``projector`` is
    written too, for ``tensorboard --logdir``. ``model`` is as in ``load``.

    Raises:
        ValueError: If the directory holds no finished run, or nothing says which data to draw.
    """
    from tfvae import plots  # here alone: training draws nothing

    check_path(run=run, output=output)
    run, output = pathlib.Path(run), pathlib.Path(output)
    vae = load(run, model)
    if data_directory:
        _check_columns(run, data_directory)
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
    source = records.read(run / records.RUN).get("data")
    if not isinstance(source, str):
        raise ValueError(f"{run} has no run.json, which says what it was trained on: name a dataset with --data.")
    return source


def _check_columns(run: PathLike, data_directory: PathLike) -> None:
    """Raise ValueError where a dataset's columns are known not to be those that a run was trained on."""
    trained = records.read(pathlib.Path(run, records.RUN)).get("dataset")
    given, known = data.identity(data_directory), trained if isinstance(trained, dict) else {}
    for name in ("standardized", "columns_sha256"):
        if None not in (given[name], known.get(name)) and given[name] != known[name]:
            raise ValueError(
                f"the columns of {data_directory} are not those that {run} was trained on, or come in another order "
                "or in other units, and numbers of such rows would mean nothing: take a split of the run's own "
                f"dataset, {_trained_on(pathlib.Path(run))}, or prepare the rows as that was prepared."
            )


def _write_json(path: pathlib.Path, value: dict[str, Any]) -> None:
    with storage.replacing(str(path), str(path.parent)) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")
