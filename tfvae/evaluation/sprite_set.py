"""Sprites: pictures whose every factor is known, drawn on demand, so that a code can be held against the factors.

The five factors and their order are dSprites' (Matthey et al., 2017): 3 shapes, 6 scales, 40 orientations, 32 places in
x and 32 in y, the last one fastest. The pictures are drawn here, so they are not dSprites, and scores compare between
runs on these alone. Orientations 0 and 39 are one angle, as there, and a square and an ellipse look the same after a
quarter and a half of a turn: no model can tell the orientation exactly, so that its score stays below 1.
"""

import functools
from typing import Any

import numpy as np

from tfvae.arguments import found_by

FACTORS = ("shape", "scale", "orientation", "x", "y")
SIZES = (3, 6, 40, 32, 32)
NUM_SPRITES = 737_280
SIDE = 64
_SUB, _RADIUS = 4, 16  # sub-pixels along the side of a pixel; pixels from a centre to the end of the largest sprite


def sprite_factors(indices: Any) -> np.ndarray:
    """The five factors of sprites by their number, int64 ``[N, 5]``, each from 0: shape, scale, orientation, x and y.

    Args:
        indices: ``[N]``, 0 to 737,279. Shapes are square, ellipse, heart; scales 0.5 to 1; orientations 0 to 2π.

    Raises:
        ValueError: For what are no such numbers.

    Example:
        >>> sprite_factors([0, 1, 32, 737_279]).tolist()
        [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [2, 5, 39, 31, 31]]
    """
    expected = f"whole numbers from 0 to {NUM_SPRITES - 1}"
    numbers = found_by(np.asarray, "indices", indices, expected)
    fits = numbers.ndim == 1 and numbers.dtype.kind in "iu"
    if not fits or (numbers.size and not 0 <= numbers.min() <= numbers.max() < NUM_SPRITES):
        raise ValueError(f"indices has shape {numbers.shape} and type {numbers.dtype}, expected {expected}, [N].")
    return np.stack(np.unravel_index(numbers, SIZES), axis=1)


def sprites(indices: Any) -> np.ndarray:
    """Pictures of 0 and 1, float32 ``[N, 64, 64, 1]``; a pixel is 1 where more than half of it lies inside the shape.

    720 masks are drawn once; a picture is one of them, moved by whole pixels. No pixel leaves the frame.

    Args:
        indices: ``[N]``, 0 to 737,279: see ``sprite_factors``.

    Raises:
        ValueError: See ``sprite_factors``.

    Example:
        >>> sprites([0, 737_279]).sum(axis=(1, 2, 3)).round(-1).tolist()
        [100.0, 600.0]
    """
    shape, scale, orientation, x, y = sprite_factors(indices).T
    masks = _masks()[shape, scale, orientation]
    left, top = (np.round(SIDE / 2 * place / 31).astype(int)[:, np.newaxis, np.newaxis] for place in (x, y))
    pixels = np.arange(2 * _RADIUS)
    pictures = np.zeros([len(masks), SIDE, SIDE, 1], np.float32)
    rows = np.arange(len(masks))[:, np.newaxis, np.newaxis]
    pictures[rows, top + pixels[:, np.newaxis], left + pixels, 0] = masks
    return pictures


@functools.cache
def _masks() -> np.ndarray:
    """``[3, 6, 40, 32, 32]``, about the centre."""
    at = (np.arange(2 * _RADIUS * _SUB) + 0.5) / _SUB - _RADIUS
    angles = np.linspace(0, 2 * np.pi, SIZES[2])[:, np.newaxis, np.newaxis]
    u = np.cos(angles) * at + np.sin(angles) * at[:, np.newaxis]
    v = np.sin(angles) * at - np.cos(angles) * at[:, np.newaxis]  # upwards
    masks = np.empty([*SIZES[:3], 2 * _RADIUS, 2 * _RADIUS], bool)
    for i, scale in enumerate(np.linspace(0.5, 1, SIZES[1])):
        for j, inside in enumerate(_inside(u / (_RADIUS * scale), v / (_RADIUS * scale))):
            parts = inside.reshape(SIZES[2], 2 * _RADIUS, _SUB, 2 * _RADIUS, _SUB)
            masks[j, i] = parts.sum(axis=(2, 4)) > _SUB**2 / 2
    return masks


def _inside(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
    """Whether a point is inside the square, the ellipse and the heart of radius 1."""
    square = np.maximum(np.abs(u), np.abs(v)) <= 0.7
    s, t = u / 0.8, v / 0.8
    return square, u**2 + 4 * v**2 <= 1, (s**2 + t**2 - 1) ** 3 <= s**2 * t**3
