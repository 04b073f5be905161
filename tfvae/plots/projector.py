"""TensorBoard's embedding projector: posterior means of rows, each with its picture and its label."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfvae.arguments import check_path, check_words, some
from tfvae.models.vae import VAE, check_vae
from tfvae.pipelines import extras
from tfvae.plots import pictures, style
from tfvae.plots.style import PathLike

with extras.needed("plots"):
    from PIL import Image

_SPRITE = 8192  # pixels: the longest side of a texture that a browser is sure to take


def projector(
    vae: VAE,
    x: Any,
    folder: PathLike,
    labels: Any = None,
    names: Sequence[str] = (),
    image_shape: Sequence[int] | None = None,
) -> str:
    """Write what ``tensorboard --logdir FOLDER`` shows under Projector; returns the folder.

    ``tensors.tsv`` holds the posterior means, ``metadata.tsv`` each row's label, ``sprite.png`` the pictures, where
    observations are pictures, and ``projector_config.pbtxt``, which is written last, names them.

    Args:
        vae: The model.
        x: Rows as ``fit`` takes them; TensorBoard stays lively up to some 10,000.
        folder: Where the files go; it is made.
        labels: A class for each row, ``[N]``, numbers or strings.
        names: What the classes are called that are numbers, from 0 on.
        image_shape: See ``samples``.
    """
    check_vae(vae)
    check_path(folder=folder)
    check_words(names=names)
    from google.protobuf import text_format

    with extras.needed("tensorboard"):
        from tensorboard.plugins import projector as plugin

    means = some(vae.embed(x), "draw")
    labels = style.checked_labels(labels, len(means))
    config = plugin.ProjectorConfig()
    embedding = config.embeddings.add(tensor_name="posterior means", tensor_path="tensors.tsv")
    embedding.tensor_shape.extend(means.shape)
    _write(folder, "tensors.tsv", "".join("\t".join(f"{value:.6g}" for value in row) + "\n" for row in means))
    if labels is not None:
        embedding.metadata_path = "metadata.tsv"
        words = (_cell(style.label_name(label, names)) for label in labels)
        _write(folder, "metadata.tsv", "".join(f"{word}\n" for word in words))
    if image_shape is not None or len(vae.event_shape) >= 2:
        rows = x["x"] if isinstance(x, Mapping) else x
        sprite, size = _sprite(pictures.as_images(vae, rows, image_shape))
        embedding.sprite.image_path = "sprite.png"
        embedding.sprite.single_image_dim.extend(size)
        with style.replacing(os.path.join(folder, "sprite.png")) as file:
            sprite.save(file, "PNG")
    _write(folder, "projector_config.pbtxt", text_format.MessageToString(config))
    return str(folder)


def _write(folder: PathLike, name: str, text: str) -> None:
    with style.replacing(os.path.join(folder, name)) as file:
        file.write(text.encode())


def _cell(word: str) -> str:
    """A word that breaks no table of tabs and lines; TensorBoard drops empty lines."""
    return " ".join(word.split()) or "-"


def _sprite(images: np.ndarray) -> tuple[Image.Image, tuple[int, int]]:
    """Pictures ``[N, H, W, C]`` side by side, as many in a line as there are lines, and the width and height of one.

    They are made smaller until the whole is no wider and no higher than a browser takes.
    """
    count, height, width, channels = images.shape
    side = math.ceil(math.sqrt(count))
    scale = min(1.0, _SPRITE / (side * max(height, width)))
    size = max(1, int(width * scale)), max(1, int(height * scale))
    sheet = Image.new("L" if channels == 1 else "RGB", (side * size[0], side * size[1]))
    for i, image in enumerate(np.round(images * 255).astype(np.uint8)):
        one = Image.fromarray(image[..., 0] if channels == 1 else image)
        sheet.paste(one if one.size == size else one.resize(size), (i % side * size[0], i // side * size[1]))
    return sheet, size
