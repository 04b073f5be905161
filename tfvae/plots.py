"""What a person looks at: pictures of a trained VAE, as PNG files."""

import csv
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfvae.models.vae import VAE
from tfvae.pipelines import extras

with extras.needed("plots"):
    import matplotlib
    from matplotlib.figure import Figure
    from scipy import special

PathLike = str | os.PathLike[str]

_DPI = 120


def _grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images ``[N, H, W, C]`` as one picture, row by row, with a line of white between them."""
    images = np.asarray(images, np.float32)
    rows = math.ceil(len(images) / columns)
    missing = rows * columns - len(images)
    height, width, channels = images.shape[1:]
    padded = np.pad(images, [[0, missing], [0, 1], [0, 1], [0, 0]], constant_values=1.0)
    padded = padded.reshape(rows, columns, height + 1, width + 1, channels).transpose(0, 2, 1, 3, 4)
    return padded.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]


def _as_images(vae: VAE, x: np.ndarray, image_shape: Sequence[int] | None = None) -> np.ndarray:
    """Observations as ``[N, H, W, C]`` in [0, 1], of their own shape or, where they are vectors, of ``image_shape``.

    Raises:
        ValueError: If an observation is no picture.
    """
    shape = tuple(image_shape or vae.event_shape)
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or shape[-1] not in (1, 3) or math.prod(shape) != math.prod(vae.event_shape):
        given = f", nor by image_shape={tuple(image_shape)}" if image_shape else ": pass their image_shape"
        raise ValueError(f"Observations of shape {vae.event_shape} are no pictures [H, W, 1] or [H, W, 3]{given}.")
    x = np.asarray(x)
    scaled = x / 255.0 if x.dtype == np.uint8 else x
    return np.clip(scaled.reshape(-1, *shape), 0.0, 1.0)


def _save(figure: Figure, path: PathLike) -> None:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=_DPI)


def _save_picture(picture: np.ndarray, title: str, path: PathLike) -> None:
    height, width = picture.shape[:2]
    figure = Figure(figsize=(6, 6 * height / width + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()
    _save(figure, path)


def samples(
    vae: VAE,
    path: PathLike,
    rows: int = 10,
    columns: int = 10,
    seed: int = 0,
    image_shape: Sequence[int] | None = None,
) -> None:
    """Means of p(x|z) for z drawn from the prior, as in the paper's Figure 5.

    Observations that are vectors are shown in ``image_shape``, ``[H, W]`` or ``[H, W, C]``.
    """
    images = _as_images(vae, vae.sample(rows * columns, seed=seed), image_shape)
    _save_picture(_grid(images, columns), f"Samples, {vae.latent_dim}-D latent space", path)


def reconstructions(vae: VAE, x: np.ndarray, path: PathLike, columns: int = 12, pairs: int = 4) -> None:
    """Inputs and, under each, its reconstruction."""
    x = np.asarray(x)[: columns * pairs]
    inputs, outputs = _as_images(vae, x), _as_images(vae, vae.reconstruct(x))
    columns = min(columns, len(x))
    lines = [images[start : start + columns] for start in range(0, len(x), columns) for images in (inputs, outputs)]
    full = [np.pad(line, [[0, columns - len(line)], [0, 0], [0, 0], [0, 0]], constant_values=1.0) for line in lines]
    _save_picture(_grid(np.concatenate(full), columns), "Inputs and, below each, its reconstruction", path)


def latent_space(
    vae: VAE, x: np.ndarray, path: PathLike, labels: np.ndarray | None = None, names: Sequence[str] = ()
) -> None:
    """With a 2-D latent space the learned manifold (the paper's Figure 4), else the posterior means in two directions.

    The manifold is p(x|z)'s mean at z = Φ⁻¹(u) for u on a regular grid of the unit square. The directions are the first
    two principal components of the means, coloured by label where there is one.

    Args:
        vae: The model.
        x: Observations ``[N, *event]``.
        path: The PNG to write; its folder is made.
        labels: A class for each row, ``[N]``: numbers, or strings as they are.
        names: What the classes are called that are numbers, from 0 on.
    """
    if vae.latent_dim == 2:
        manifold(vae, path)
    else:
        _scatter(vae.embed(x), labels, names, path)


def manifold(
    vae: VAE, path: PathLike, rows: int = 20, columns: int = 20, image_shape: Sequence[int] | None = None
) -> None:
    """See ``latent_space``, for a 2-D latent space; and ``samples`` for ``image_shape``."""
    horizontal, vertical = (special.ndtri((np.arange(n) + 0.5) / n) for n in (columns, rows))
    z = np.stack(np.meshgrid(horizontal, vertical[::-1]), axis=-1).reshape(-1, 2)
    means = vae.decode(z.astype(np.float32)).mean().numpy()
    _save_picture(_grid(_as_images(vae, means, image_shape), columns), "Manifold at z = Φ⁻¹(u)", path)


def _scatter(means: np.ndarray, labels: np.ndarray | None, names: Sequence[str], path: PathLike) -> None:
    centred = means - means.mean(axis=0)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    points = centred @ directions[:2].T
    if points.shape[1] == 1:
        points = np.pad(points, [[0, 0], [0, 1]])
    share = (spread**2 / max(np.sum(spread**2), 1e-12))[:2]
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["tab10"]
    labels = None if labels is None else np.asarray(labels)
    groups = [(None, np.ones(len(points), bool))] if labels is None else [(k, labels == k) for k in np.unique(labels)]
    for k, (label, chosen) in enumerate(groups):
        name = None if label is None else _label_name(label, names)
        axes.scatter(points[chosen, 0], points[chosen, 1], s=4, color=colours(k % 10), label=name, linewidths=0)
    axes.set_xlabel(f"first principal component of E[z|x] ({share[0]:.0%} of the variance)")
    axes.set_ylabel("second" + (f" ({share[1]:.0%})" if len(share) > 1 else ""))
    if labels is not None and len(groups) <= 20:
        axes.legend(markerscale=3, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def _label_name(label: Any, names: Sequence[str]) -> str:
    """What the legend calls a label: a class's name, where labels are numbers and it has one, else the label itself."""
    if isinstance(label, np.integer) and 0 <= label < len(names):
        return names[int(label)]
    return label.decode(errors="replace") if isinstance(label, bytes) else str(label)


def learning_curve(history: PathLike | dict[str, Sequence[float]], path: PathLike) -> None:
    """The ELBO in nats over the epochs, from Keras's history or from the CSV file that ``tfvae train`` writes.

    Raises:
        ValueError: If the history holds no ELBO.
    """
    values: dict[str, Any] = history if isinstance(history, dict) else _read_history(history)
    if not len(values.get("elbo", ())):
        raise ValueError(
            f"The history holds no elbo, only {', '.join(values) or 'nothing'}: train for an epoch at least."
        )
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for key, label in (("elbo", "training"), ("val_elbo", "validation")):
        if key in values:
            axes.plot(np.arange(1, len(values[key]) + 1), values[key], label=label, marker=".")
    axes.set_xlabel("epoch")
    axes.set_ylabel("ELBO (nats)")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def _read_history(path: PathLike) -> dict[str, list[float]]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows] for key in (rows[0] if rows else {})}
