"""The latent space: its manifold, where rows lie in it, and what lies along its units and between two rows."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import evaluation
from tfvae.arguments import check_at_least, check_number, check_words, some
from tfvae.families import draws
from tfvae.models.vae import VAE, check_vae
from tfvae.pipelines import extras
from tfvae.plots import pictures, style
from tfvae.plots.style import PathLike

with extras.needed("plots"):
    from scipy import special

_PRIOR_DRAWS = 10_000
_MARKERS = "osD^v"  # a second sign beside the colours, where there are more classes than these


def latent_space(vae: VAE, x: Any, path: PathLike, labels: Any = None, names: Sequence[str] = ()) -> str:
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
    check_vae(vae)
    check_words(names=names)
    if vae.latent_dim == 2 and len(vae.event_shape) >= 2 and vae.condition_shape is None:
        return manifold(vae, path)
    means = some(vae.embed(x), "draw")
    return _scatter(means, style.checked_labels(labels, len(means)), names, path)


def manifold(
    vae: VAE, path: PathLike, rows: int = 20, columns: int = 20, image_shape: Sequence[int] | None = None
) -> str:
    """See ``latent_space``, for a 2-D latent space; and ``samples`` for ``image_shape``."""
    picture = manifold_grid(vae, rows, columns, image_shape)
    return pictures.save_picture(picture, "Manifold at z = Φ⁻¹(u)", path)


def manifold_grid(vae: VAE, rows: int = 20, columns: int = 20, image_shape: Sequence[int] | None = None) -> np.ndarray:
    """The picture of ``manifold``, ``[H, W, C]``."""
    check_vae(vae)
    check_at_least(1, rows=rows, columns=columns)
    horizontal, vertical = (special.ndtri((np.arange(n) + 0.5) / n) for n in (columns, rows))
    z = np.stack(np.meshgrid(horizontal, vertical[::-1]), axis=-1).reshape(-1, 2)
    means = vae.decode(z.astype(np.float32)).mean().numpy()
    return pictures.grid(pictures.as_images(vae, means, image_shape), columns)


def traversals(
    vae: VAE,
    x: Any,
    path: PathLike,
    units: int = 10,
    columns: int = 10,
    image_shape: Sequence[int] | None = None,
) -> str:
    """What each unit does to the first row: a line a unit, along which z_d alone goes through the prior's quantiles.

    Args:
        vae: The model.
        x: Rows as ``fit`` takes them; the units are those whose mean KL over them is largest, the largest first.
        path: The PNG to write.
        units: Lines.
        columns: Quantiles (i + ½) / columns of p(z_d).
        image_shape: See ``samples``.
    """
    check_vae(vae)
    check_at_least(1, units=units, columns=columns)
    kl = evaluation.kl_by_unit(vae, x)
    apart = len(kl) == vae.latent_dim  # else the units are tied, and come as they are numbered
    order = (np.argsort(-kl) if apart else np.arange(vae.latent_dim))[:units]
    lines = [f"$z_{{{d}}}$  {kl[d]:.2f} nats" if apart else f"$z_{{{d}}}$" for d in order]
    picture = traversal_grid(vae, x, order, columns, image_shape)
    return pictures.save_picture(picture, "Each unit through the quantiles of its prior", path, lines)


def traversal_grid(
    vae: VAE, x: Any, order: Any, columns: int = 10, image_shape: Sequence[int] | None = None
) -> np.ndarray:
    """The picture of ``traversals``, ``[H, W, C]``, of the units in that order."""
    first = pictures.first_rows(x, 1)
    c = first.get("condition") if isinstance(first, Mapping) else None
    values = prior_quantiles(vae, (np.arange(columns) + 0.5) / columns, c)
    z = np.repeat(vae.embed(first), len(order) * columns, axis=0).reshape(len(order), columns, -1)
    for line, d in enumerate(order):
        z[line, :, d] = values[:, d]
    return pictures.grid(_decoded(vae, z.reshape(-1, vae.latent_dim), c, image_shape), columns)


def prior_quantiles(vae: VAE, u: Any, condition: Any = None) -> np.ndarray:
    """The quantiles u ``[Q]`` of each unit under p(z), ``[Q, D]``: exact where TFP knows them, else of 10,000 draws."""
    prior = vae.prior(None if condition is None else tf.cast(condition, tf.float32))
    if isinstance(prior, tfd.Independent):
        with contextlib.suppress(NotImplementedError):
            exact = prior.distribution.quantile(tf.cast(u, tf.float32)[:, tf.newaxis])
            return np.broadcast_to(exact.numpy(), [len(u), vae.latent_dim])
    drawn = prior.sample(_PRIOR_DRAWS, seed=[0, 0]).numpy().reshape(-1, vae.latent_dim)
    return np.quantile(drawn, u, axis=0).astype(np.float32)


def interpolations(
    vae: VAE,
    x: Any,
    path: PathLike,
    pairs: int = 8,
    columns: int = 10,
    spherical: bool = True,
    image_shape: Sequence[int] | None = None,
) -> str:
    """What lies between two rows: a line for the first and second, one for the third and fourth, and so on.

    Args:
        vae: The model. Of a conditional one, each line has the condition of its first row.
        x: Rows as ``fit`` takes them.
        path: The PNG to write.
        pairs: Lines.
        columns: Steps from one posterior mean to the other, both included.
        spherical: Whether z turns from one to the other, as ``between``, or goes straight.
        image_shape: See ``samples``.
    """
    check_vae(vae)
    check_at_least(1, pairs=pairs, columns=columns)
    rows = pictures.first_rows(x, 2 * pairs)
    means = vae.embed(rows)
    if len(means) < 2:
        raise ValueError(f"x has {len(means)} rows, expected two at least: a line goes from one to the next.")
    means = means[: len(means) // 2 * 2]
    z = np.concatenate([between(*pair, columns, spherical) for pair in zip(means[::2], means[1::2], strict=True)])
    c = rows.get("condition") if isinstance(rows, Mapping) else None
    c = None if c is None else np.repeat(c[: len(means) : 2], columns, axis=0)
    way = "a turn" if spherical else "a straight line"
    picture = pictures.grid(_decoded(vae, z, c, image_shape), columns)
    return pictures.save_picture(picture, f"Between two rows, z on {way}", path)


def attributes(
    vae: VAE,
    x: Any,
    attribute: Any,
    path: PathLike,
    rows: int = 6,
    columns: int = 9,
    reach: float = 2.0,
    image_shape: Sequence[int] | None = None,
) -> str:
    """What an attribute does to rows that lack it: a line a row, along which the attribute's vector is added to its z.

    Args:
        vae: The model. Of a conditional one, each line has the condition of its row.
        x: Rows as ``fit`` takes them.
        attribute: Whether each row has it, ``[N]``; see ``evaluation.attribute_vector``.
        path: The PNG to write.
        rows: Lines: the first rows that lack it.
        columns: Steps, the first with the row's own z.
        reach: How many times the vector is added in the last step; by 1 a row has as much of it as those that have it.
        image_shape: See ``samples``.
    """
    check_vae(vae)
    check_at_least(1, rows=rows, columns=columns)
    check_number(0.0, reach=reach)
    means = vae.embed(x)
    vector = evaluation.attribute_vector(vae, x, attribute)
    lacking = np.flatnonzero(~np.asarray(attribute, bool))[:rows]
    steps = np.linspace(0.0, float(reach), columns)[:, np.newaxis] * vector
    z = (means[lacking, np.newaxis] + steps).reshape(-1, vae.latent_dim)
    c = x.get("condition") if isinstance(x, Mapping) else None
    c = None if c is None else np.repeat(np.asarray(c)[lacking], columns, axis=0)
    picture = pictures.grid(_decoded(vae, z, c, image_shape), columns)
    return pictures.save_picture(picture, f"An attribute added, up to {reach:g} times", path)


def between(first: np.ndarray, last: np.ndarray, steps: int, spherical: bool = True) -> np.ndarray:
    """Points from one z ``[D]`` to another, both included, ``[steps, D]``.

    On a turn the direction moves at an even pace along the great circle and the length evenly from one to the other
    (slerp): draws of N(0, I) lie near a sphere, of which a straight line cuts the inside.

    Example:
        >>> between(np.array([2.0, 0.0]), np.array([0.0, 2.0]), 3).round(4).tolist()
        [[2.0, 0.0], [1.4142, 1.4142], [0.0, 2.0]]
    """
    t = np.linspace(0.0, 1.0, steps)[:, None]
    lengths = [np.linalg.norm(z) for z in (first, last)]
    if not spherical or min(lengths) == 0:
        return (1 - t) * first + t * last
    a, b = first / lengths[0], last / lengths[1]
    angle = np.arccos(np.clip(np.dot(a, b), -1.0, 1.0))
    if np.sin(angle) < 1e-6:  # one direction, or opposite ones, between which no turn is the shortest
        return (1 - t) * first + t * last
    direction = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    return ((1 - t) * lengths[0] + t * lengths[1]) * direction


def _decoded(vae: VAE, z: np.ndarray, condition: Any, image_shape: Sequence[int] | None) -> np.ndarray:
    c = None if condition is None else np.resize(condition, [len(z), *np.shape(condition)[1:]])
    return pictures.as_images(vae, draws.mean(vae.decode(z.astype(np.float32), c)).numpy(), image_shape)


def _scatter(means: np.ndarray, labels: np.ndarray | None, names: Sequence[str], path: PathLike) -> str:
    centred = means - means.mean(axis=0)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    points = centred @ directions[:2].T
    if points.shape[1] == 1:
        points = np.pad(points, [[0, 0], [0, 1]])
    share = (spread**2 / max(np.sum(spread**2), 1e-12))[:2]
    groups = [(None, np.ones(len(points), bool))] if labels is None else [(k, labels == k) for k in np.unique(labels)]
    area = np.clip(5000 / len(points), 5, 20)  # of a dot, in square points
    with style.axes(path, 5.0) as axes:
        for k, (label, chosen) in enumerate(groups):
            name = None if label is None else style.label_name(label, names)
            marker = _MARKERS[k // len(style.COLOURS) % len(_MARKERS)]
            dots = {"s": area, "color": f"C{k % 10}", "marker": marker, "linewidths": 0, "alpha": 0.8}
            axes.scatter(*points[chosen].T, label=name, **dots)
        axes.set_xlabel(f"first principal component of E[z|x] ({share[0]:.0%} of the variance)")
        axes.set_ylabel("second" + (f" ({share[1]:.0%})" if len(share) > 1 else ""))
        axes.set_title(f"Posterior means, {means.shape[1]}-D latent space")
        if labels is not None and len(groups) <= 20:
            axes.legend(markerscale=6 / area**0.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return str(path)
