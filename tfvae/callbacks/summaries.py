"""TensorBoard's files, for callbacks that write more than Keras's own does."""

import os
from typing import Any

import tensorflow as tf

from tfvae.arguments import check_path
from tfvae.engine import saving
from tfvae.pipelines import extras, storage


def writer(log_dir: str | os.PathLike[str]) -> Any:
    """What writes summaries into a folder that TensorBoard looks at; ``tf.summary`` has pictures from TensorBoard.

    Raises:
        ModuleNotFoundError: If TensorBoard is not installed.
        OSError: If the folder cannot be made, or written.
    """
    check_path(log_dir=log_dir)
    storage.refuse_other_encodings(log_dir)
    with extras.needed("tensorboard"):
        import tensorboard  # noqa: F401
    with saving.told(log_dir, "written"):
        storage.make_folder(os.fspath(log_dir))
    try:
        return tf.summary.create_file_writer(os.fspath(log_dir))
    except tf.errors.OpError as error:
        raise OSError(f"{log_dir} cannot be written: name a folder in which this user may make files.") from error
