"""The whole way once: handwritten digits from a folder of pictures to embeddings and plots, by the public commands.

The digits are 1,797 real 8x8 images that lie in scikit-learn's wheel, so nothing is downloaded. They have 17 levels of
grey, which no likelihood of pixels here takes for what they are, so each is drawn in black and white.
"""

import json
import os
import pathlib
import shlex
import shutil
import time

import click

from tfvae import tables
from tfvae.pipelines import extras

with extras.needed("quickstart"):
    import matplotlib  # noqa: F401 the plots, at the end
    import PIL.Image
    import pyarrow.parquet
    import sklearn.datasets

_EPOCHS = 100
_SAMPLES = 1000
_WHITE = 8  # of 16 levels, and all above


def run(output: str, main: click.Group) -> None:
    """Run every stage into ``output`` by the commands of ``main``, and print what was measured.

    Raises:
        ValueError: If the folder holds something else than an earlier quickstart.
    """
    base = pathlib.Path(output)
    marker = base / "quickstart.json"
    if base.exists() and any(base.iterdir()) and not marker.exists():
        raise ValueError(f"{base} is not empty and holds no quickstart: choose another --output.")
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    marker.write_text("{}\n", encoding="utf-8")
    pictures, prepared, trained, models, embedded, drawn = (
        str(base / name) for name in ("pictures", "prepared", "run", "saved_models/digits", "embeddings", "plots")
    )
    _draw_digits(pathlib.Path(pictures))
    click.echo(f"{os.path.relpath(pictures)} holds scikit-learn's digits as PNG files, a folder for each label.")
    seconds = {
        "prepare": _stage(main, "prepare", "--source", "images", "--input", pictures, "--output", prepared),
        "train": _stage(main, "train", "--data", prepared, "--output", trained, "--epochs", str(_EPOCHS)),
        "evaluate": _stage(main, "evaluate", trained, "--data", prepared, "--num-samples", str(_SAMPLES)),
        "export": _stage(main, "export", trained, models),
        "embed": _stage(main, "embed", "--model", models, "--input", prepared, "--output", embedded, "--split", "all"),
        "plot": _stage(main, "plot", trained, "--output", drawn),
    }
    _report(base, seconds, {"prepared dataset": prepared, "trained model": f"{trained}/model.keras",
                            "SavedModel": f"{models}/1", "embeddings": embedded, "pictures": drawn})  # fmt: skip


def _draw_digits(folder: pathlib.Path) -> None:
    digits = sklearn.datasets.load_digits()
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(((image >= _WHITE) * 255).astype("uint8")).save(place / f"{i:04d}.png")


def _stage(main: click.Group, *arguments: str) -> float:
    """One public command in this process, printed as a user would type it; returns its seconds."""
    click.secho(f"\n$ tfvae {shlex.join(arguments)}", bold=True)
    started = time.perf_counter()
    try:
        code = main.main(list(arguments), standalone_mode=False)
    except SystemExit as stopped:
        code = stopped.code
    if code:
        raise ValueError(f"tfvae {arguments[0]} ended with exit code {code}.")
    return time.perf_counter() - started


def _report(base: pathlib.Path, seconds: dict[str, float], places: dict[str, str]) -> None:
    result = json.loads((base / "run" / "evaluation.json").read_text(encoding="utf-8"))
    trained = json.loads((base / "run" / "run.json").read_text(encoding="utf-8"))
    parts = list((base / "embeddings").rglob("*.parquet"))
    embedded = sum(pyarrow.parquet.read_metadata(part).num_rows for part in parts)
    total = sum(seconds.values())
    handled = {"prepare": embedded, "train": trained["rows"] * trained["epochs"], "evaluate": result["rows"],
               "embed": embedded}  # fmt: skip
    measured = {"test_elbo": result["elbo"], "test_log_marginal": result["log_marginal"], "rows_embedded": embedded,
                "seconds": {name: round(value, 2) for name, value in seconds.items()}}  # fmt: skip
    (base / "quickstart.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    click.secho("\nWhat was measured", bold=True)
    rows = [
        ("test ELBO", f"{result['elbo']:.2f} nats, {result['observations']}"),
        ("test log p(x)", tables.log_marginal(result)),
        ("rows embedded", f"{embedded:,}"),
        *(
            (name, f"{value:.1f} s" + (f", {handled[name] / value:,.0f} rows/s" if name in handled else ""))
            for name, value in seconds.items()
        ),
        ("in all", f"{total:.1f} s"),
        *((name, os.path.relpath(path)) for name, path in places.items()),
    ]
    click.echo(tables.plain(rows))
