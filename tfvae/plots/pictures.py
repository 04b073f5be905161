"""Observations that are pictures: samples and reconstructions, laid out in a grid."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfvae import observations
from tfvae.arguments import (
    check_at_least,
    check_path,
    check_whole,
    check_words,
    checked_shape,
    refuse_masked,
    refuse_sparse,
    some,
)
from tfvae.engine.batches import in_memory, in_parts
from tfvae.models.vae import VAE, check_vae
from tfvae.plots import style
from tfvae.plots.style import PathLike


def grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images ``[N, H, W, C]`` as one picture, row by row, with a line of white between them."""
    images = np.asarray(images, np.float32)
    rows = math.ceil(len(images) / columns)
    missing = rows * columns - len(images)
    height, width, channels = images.shape[1:]
    padded = np.pad(images, [[0, missing], [0, 1], [0, 1], [0, 0]], constant_values=1.0)
    padded = padded.reshape(rows, columns, height + 1, width + 1, channels).transpose(0, 2, 1, 3, 4)
    return padded.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]


def as_images(vae: VAE, x: Any, image_shape: Sequence[int] | None = None) -> np.ndarray:
    """Observations as ``[N, H, W, C]`` in [0, 1], of their own shape or, where they are vectors, of ``image_shape``.

    Raises:
        ValueError: If an observation is no picture.
    """
    shape = checked_shape("image_shape", vae.event_shape if image_shape is None else image_shape)
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or shape[-1] not in (1, 3) or math.prod(shape) != math.prod(vae.event_shape):
        given = f", nor by image_shape={tuple(image_shape)}" if image_shape is not None else ": pass their image_shape"
        raise ValueError(f"Observations of shape {vae.event_shape} are no pictures [H, W, 1] or [H, W, 3]{given}.")
    x = np.asarray(x)
    are_bytes = x.dtype == np.uint8 and observations.is_picture(vae.likelihood)
    return np.clip((x / (255.0 if are_bytes else observations.white(vae.likelihood))).reshape(-1, *shape), 0.0, 1.0)


def save_picture(picture: np.ndarray, title: str, path: PathLike, lines: Sequence[str] = ()) -> str:
    """A grid ``[H, W, C]`` under its title, with a word beside each of its lines where there are ``lines``."""
    height, width = picture.shape[:2]
    with style.axes(path, style.WIDTH * height / width + 0.4) as axes:
        axes.imshow(
            picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest"
        )
        axes.set_title(title)
        axes.spines[:].set_visible(False)
        step = (height + 1) / max(1, len(lines))
        axes.set_yticks([(i + 0.5) * step - 1 for i in range(len(lines))], lines)
        axes.set_xticks([])
        axes.tick_params(length=0)
    return str(path)


def samples(
    vae: VAE,
    path: PathLike,
    rows: int = 10,
    columns: int = 10,
    seed: int = 0,
    image_shape: Sequence[int] | None = None,
    condition: Any = None,
) -> str:
    """Means of p(x|z) for z drawn from the prior, as in the paper's Figure 5.

    Observations that are vectors are shown in ``image_shape``, ``[H, W]`` or ``[H, W, C]``. A conditional model is
    given ``condition`` ``[rows · columns, *condition_shape]``.
    """
    check_vae(vae)
    check_path(path=path)
    check_at_least(1, rows=rows, columns=columns)
    check_whole(seed=seed)
    images = as_images(vae, vae.sample(rows * columns, seed=seed, condition=condition), image_shape)
    return save_picture(grid(images, columns), f"Samples, {vae.latent_dim}-D latent space", path)


def samples_by_class(
    vae: VAE,
    conditions: Any,
    path: PathLike,
    names: Sequence[str] = (),
    columns: int = 10,
    seed: int = 0,
    image_shape: Sequence[int] | None = None,
) -> str:
    """Samples of a conditional model, a line for each of ``conditions`` ``[K, *condition_shape]``, from the same noise.

    Args:
        vae: A model with a condition.
        conditions: One for each line, the one-hot classes ``np.eye(K)``, say.
        path: The PNG to write.
        names: What to call them; by default by their numbers.
        columns: Samples in a line.
        seed: Fixes the noise, which is that of its column.
        image_shape: See ``samples``.
    """
    check_vae(vae)
    check_path(path=path)
    check_words(names=names)
    check_at_least(1, columns=columns)
    check_whole(seed=seed)
    refuse_masked("conditions", conditions)
    conditions = np.asarray(conditions)
    drawn = [vae.sample(columns, seed=seed, condition=np.repeat(c[None], columns, axis=0)) for c in conditions]
    lines = [style.label_name(k, names) for k in range(len(conditions))]
    picture = grid(as_images(vae, np.concatenate(drawn), image_shape), columns)
    return save_picture(picture, "Samples by class, each column from one z", path, lines)


def reconstructions(
    vae: VAE,
    x: Any,
    path: PathLike,
    columns: int = 12,
    pairs: int = 4,
    image_shape: Sequence[int] | None = None,
) -> str:
    """Inputs and, under each, its reconstruction; x are rows as ``fit`` takes them."""
    picture = reconstruction_grid(vae, x, columns, pairs, image_shape)
    return save_picture(picture, "Inputs and, below each, its reconstruction", path)


def reconstruction_grid(
    vae: VAE, x: Any, columns: int = 12, pairs: int = 4, image_shape: Sequence[int] | None = None
) -> np.ndarray:
    """The picture of ``reconstructions``, ``[H, W, C]``."""
    check_vae(vae)
    check_at_least(1, columns=columns, pairs=pairs)
    rows = first_rows(x, columns * pairs)
    outputs = as_images(vae, some(vae.reconstruct(rows), "draw"), image_shape)
    inputs = as_images(vae, rows["x"] if isinstance(rows, Mapping) else rows, image_shape)
    columns = min(columns, len(inputs))
    lines = [images[i : i + columns] for i in range(0, len(inputs), columns) for images in (inputs, outputs)]
    full = [np.pad(line, [[0, columns - len(line)], [0, 0], [0, 0], [0, 0]], constant_values=1.0) for line in lines]
    return grid(np.concatenate(full), columns)


def first_rows(x: Any, count: int | None) -> Any:
    """The first ``count`` (None: all) of rows as ``fit`` takes them in memory, as NumPy arrays."""
    if not in_memory(x):
        raise ValueError(
            f"x is a {type(x).__name__}, expected rows in memory, an array or a mapping of arrays: take some of them, "
            "such as next(iter(dataset))."
        )
    parts = x.values() if in_parts(x) else [x]
    for part in parts:
        refuse_sparse("x", part)
        refuse_masked("x", part)
    if not all(map(np.ndim, parts)):
        raise ValueError(f"x is {x!r}, expected rows, an array or a mapping of arrays.")
    return {k: np.asarray(v)[:count] for k, v in x.items()} if in_parts(x) else np.asarray(x)[:count]
