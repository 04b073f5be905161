"""TensorBoard's files, for callbacks that write more than Keras's own does."""

import os
from typing import Any

import tensorflow as tf

from tfvae.arguments import check_path
from tfvae.pipelines import extras, storage


def writer(log_dir: str | os.PathLike[str]) -> Any:
    """What writes summaries into a folder that TensorBoard looks at; ``tf.summary`` has pictures from TensorBoard.

    Raises:
        ModuleNotFoundError: If TensorBoard is not installed.
    """
    check_path(log_dir=log_dir)
    storage.check_utf8(log_dir)
    with extras.needed("tensorboard"):
        import tensorboard  # noqa: F401
    return tf.summary.create_file_writer(os.fspath(log_dir))
