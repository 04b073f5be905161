"""scVI's model of counts (Lopez et al., 2018) beside scvi-tools: the same cells, networks, optimiser and epochs.

    tfvae reproduce pbmc --environment .venv-scvi --data-dir data

700 blood cells (PBMC) of 765 genes, four fifths of them to train on. One hidden layer of 128 with batch norm, dropout
0.1 in the encoder, 10 latent units, one dispersion a gene, Adam 1e-3, the KL warmed up over the first half of the
epochs: scvi-tools' own settings, but for Adam's ε (1e-8), no weight decay, the shorter warm-up, and minibatches of 112,
which divide the 560 cells. Of a last batch that is smaller, batch norm sees those rows alone there; here it sees a
whole batch, which they fill over again, some of them once more than others.

Speeds are of one thread each where the environment says so, to TensorFlow by ``TF_NUM_INTRAOP_THREADS=1`` and
``TF_NUM_INTEROP_THREADS=1``, to PyTorch by ``OMP_NUM_THREADS=1``.

Both sides are measured alike: the ELBO by 10 draws, log p(x | library) by importance samples, of the cells held out.
"""

import json
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import keras
import numpy as np

from tfvae import evaluation, likelihoods, objectives
from tfvae.distribution_layer import DistributionLayer
from tfvae.experiments import datasets, single_cell
from tfvae.experiments.paper_figure import check_names, write_csv
from tfvae.models.vae import VAE

FAMILIES: Final = ("NegativeBinomial", "ZeroInflatedNegativeBinomial")
BATCH_SIZE, HIDDEN, LATENT, DRAWS = 112, 128, 10, 10
_SIDE = pathlib.Path(single_cell.__file__).parent / "scvi_side.py"


def pbmc(
    output: str = "runs/pbmc",
    data_dir: str = "data",
    families: Sequence[Literal["NegativeBinomial", "ZeroInflatedNegativeBinomial"]] = FAMILIES,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    epochs: int = 400,
    marginal_samples: int = 500,
    environment: str | None = None,
) -> list[dict[str, Any]]:
    """Train and measure both sides on each seed, one after the other, and write ``pbmc.csv`` to ``output``.

    What a seed has given is kept under ``output``, so that a run that is stopped goes on where it was.

    Args:
        output: The folder to write.
        data_dir: Holds ``pbmc/pbmc_counts.npz``.
        families: Some of NegativeBinomial and ZeroInflatedNegativeBinomial.
        seeds: Each fixes which cells are held out, weights, shuffles and noise.
        epochs: Passes over the cells.
        marginal_samples: Importance samples of the measured log p(x | library).
        environment: A folder with ``bin/python`` that has scvi-tools; without one our side runs alone.

    Returns:
        A row for each family and side: means over seeds with their standard errors, that of the differences of pairs,
        minutes of training by the clock, and cells a second of processor time after the first epoch, in which programs
        are compiled.

    Raises:
        ValueError: For an unknown name or a number out of range.
    """
    check_names(families, FAMILIES)
    if epochs < 2 or marginal_samples < 2 or len(seeds) < 2:
        raise ValueError(
            f"epochs, marginal_samples and the number of seeds must be 2 at least, received {epochs}, "
            f"{marginal_samples} and {len(seeds)}."
        )
    counts = datasets.cells(str(pathlib.Path(data_dir) / "pbmc" / "pbmc_counts.npz"))
    rows: list[dict[str, Any]] = []
    for family in families:
        sides: dict[str, list[dict[str, float]]] = {"tfvae": [], **({"scvi-tools": []} if environment else {})}
        for seed in seeds:
            for side, found in sides.items():
                place = pathlib.Path(output) / f"{side}-{family}-{epochs}-{marginal_samples}-{seed}.json"
                train, test = _split(counts, seed)
                arguments = (train, test, family, epochs, seed, marginal_samples)
                found.append(_kept(place, arguments, environment if side == "scvi-tools" else None))
        rows += [_row(family, side, found, sides["tfvae"]) for side, found in sides.items()]
        write_csv(pathlib.Path(output) / "pbmc.csv", list(rows[0]), [list(row.values()) for row in rows])
    return rows


def _split(counts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(counts))
    held_out = len(counts) // 5
    return counts[order[held_out:]], counts[order[:held_out]]


def _kept(place: pathlib.Path, arguments: tuple[Any, ...], environment: str | None) -> dict[str, float]:
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        found = _ours(*arguments) if environment is None else _theirs(environment, *arguments)
        place.write_text(json.dumps(found), encoding="utf-8")
    return json.loads(place.read_text(encoding="utf-8"))


def build(family: str, num_genes: int, steps: int, seed: int) -> VAE:
    """scVI's model, untrained; the KL is warmed up over the first half of the steps.

    Example:
        >>> build("NegativeBinomial", 5, 10, 0).latent_dim
        10
    """
    keras.utils.set_random_seed(seed)
    likelihood = likelihoods.library_counts([num_genes], family)
    likelihood = DistributionLayer(**{**likelihood.get_config(), "kernel_initializer": _uniform()})
    vae = VAE(
        keras.Sequential([*_hidden(), keras.layers.Dropout(0.1)]),
        keras.Sequential(_hidden()),
        DistributionLayer(
            "Normal", [LATENT], constraints={"scale": "log_variance"}, kernel_initializer=_uniform(), name="posterior"
        ),
        likelihood,
        objective=objectives.Weighted(keras.optimizers.schedules.PolynomialDecay(0.0, max(1, steps // 2), 1.0)),
        seed=seed,
    )
    dispersion = vae.likelihood.shared_weights["total_count"]
    dispersion.assign(np.random.default_rng(seed).normal(size=dispersion.shape))
    vae.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8))
    return vae


def _hidden() -> list[keras.layers.Layer]:
    dense = keras.layers.Dense(HIDDEN, kernel_initializer=_uniform())
    return [dense, keras.layers.BatchNormalization(momentum=0.99, epsilon=1e-3), keras.layers.ReLU()]


def _uniform() -> keras.initializers.Initializer:
    """PyTorch's: ±1/√inputs."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def _ours(train: np.ndarray, test: np.ndarray, family: str, epochs: int, seed: int, samples: int) -> dict[str, float]:
    vae = build(family, train.shape[1], epochs * -(-len(train) // BATCH_SIZE), seed)
    started = time.perf_counter()
    vae.fit(train, batch_size=BATCH_SIZE, epochs=1, verbose=0)
    compiled = time.process_time()
    vae.fit(train, batch_size=BATCH_SIZE, epochs=epochs - 1, verbose=0)
    ended, seconds = time.process_time(), time.perf_counter() - started
    return {
        "elbo": float(np.mean(vae.elbo(test, num_samples=DRAWS, seed=seed))),
        "log_marginal": evaluation.log_marginal(vae, test, samples, seed=seed).mean,
        "seconds": seconds,
        "rows_a_cpu_second": (epochs - 1) * len(train) / (ended - compiled),
    }


def _theirs(environment: str, *arguments: Any) -> dict[str, float]:
    train, test, *settings = arguments
    with tempfile.TemporaryDirectory() as folder:
        rows, answer = pathlib.Path(folder) / "rows.npz", pathlib.Path(folder) / "answer.json"
        np.savez(rows, train=train, test=test)
        command = [str(pathlib.Path(environment) / "bin" / "python"), str(_SIDE), str(rows), str(answer)]
        done = subprocess.run([*command, *map(str, settings)], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it said nothing"]
            raise ValueError(f"scvi-tools in {environment} ended with {done.returncode}: {lines[-1]}")
        return json.loads(answer.read_text(encoding="utf-8"))


def _row(family: str, side: str, found: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, Any]:
    def values(name: str, of: list[dict[str, float]] = found) -> np.ndarray:
        return np.array([one[name] for one in of])

    row: dict[str, Any] = {"family": family, "side": side, "seeds": len(found)}
    for name in ("elbo", "log_marginal"):
        row[name] = float(values(name).mean())
        row[f"{name}_error"] = _error(values(name))
        apart = values(name, ours) - values(name)
        row[f"{name}_ours_above"] = float(apart.mean()) if found is not ours else None
        row[f"{name}_ours_above_error"] = _error(apart) if found is not ours else None
    row["minutes"] = float(values("seconds").sum() / 60)
    row["rows_a_cpu_second"] = float(np.median(values("rows_a_cpu_second")))
    return row


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))
