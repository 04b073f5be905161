"""Pictures that move: a GIF of a model as it learns, or of a walk through its latent space."""

from collections.abc import Sequence

import numpy as np

from tfvae.arguments import check_at_least, check_kind, check_number, check_path
from tfvae.pipelines import extras
from tfvae.plots import style
from tfvae.plots.style import PathLike

with extras.needed("plots"):
    from PIL import Image

_LONGEST = 655.0  # seconds: a GIF counts hundredths in 16 bits


def animation(
    pictures: Sequence[np.ndarray], path: PathLike, seconds: float = 0.1, rest: float = 2.0, greys: int = 16
) -> str:
    """Pictures ``[H, W, 1]`` or ``[H, W, 3]`` in [0, 1], all of one shape, as a GIF that starts again at its end.

    Args:
        pictures: What ``plots.latent.manifold_grid``, ``plots.pictures.reconstruction_grid`` and their like give.
        path: The GIF to write.
        seconds: How long each is shown.
        rest: How long the last one is.
        greys: Levels, or colours of ``[H, W, 3]``: the fewer, the smaller the file.

    Raises:
        ValueError: If there are no pictures, or not all have one shape.

    Example:
        >>> animation([np.full([8, 8, 1], i / 4) for i in range(5)], "grey.gif")
        'grey.gif'
    """
    check_kind("pictures", pictures, (Sequence, np.ndarray), "a list of arrays, [H, W, 1] or [H, W, 3] each")
    check_path(path=path)
    check_number(0, most=_LONGEST, seconds=seconds, rest=rest)
    check_at_least(2, greys=greys)
    shapes = {np.shape(picture) for picture in pictures}
    if len(shapes) != 1 or not (len(shape := next(iter(shapes))) == 3 and shape[-1] in (1, 3)):
        raise ValueError(f"pictures have the shapes {sorted(shapes)}, expected one, [H, W, 1] or [H, W, 3].")
    frames = [_frame(np.asarray(picture), greys) for picture in pictures]
    times = [int(1000 * seconds)] * (len(frames) - 1) + [int(1000 * rest)]
    with style.replacing(path) as file:
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)
    return str(path)


def _frame(picture: np.ndarray, greys: int) -> Image.Image:
    """With so many levels at even steps, the same in every frame, so that nothing flickers."""
    if picture.shape[-1] == 3:
        levels = np.round(picture * 255).astype(np.uint8)
        return Image.fromarray(levels).quantize(greys)
    levels = np.round(np.round(picture[..., 0] * (greys - 1)) * 255 / (greys - 1)).astype(np.uint8)
    return Image.fromarray(levels)
