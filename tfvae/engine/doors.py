"""What Keras gives every model, held to what it takes: what else comes is told in a sentence, and changes nothing.

Keras itself loads what fits of another model's weights, ignores a loss that is added outside of a layer, and tells of
the rest in the words of whatever library it was that stumbled.
"""

import contextlib
import pathlib
import reprlib
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from tfvae.arguments import (
    check_at_least,
    check_kind,
    check_number,
    check_path,
    check_truth,
    refuse_masked,
    refuse_unknown,
)
from tfvae.engine import keras_private, saving

_WEIGHTS = (".weights.h5", ".weights.json", ".keras")
_TREE = "a tree as get_state_tree gives it, of a model like this one"


class Doors(keras_private.BuiltModel):
    """A ``keras.Model`` whose inherited methods look at their arguments."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's; rows that are no tensors yet, such as lists, become some or are refused."""
        if args:
            for leaf in (leaves := keras.tree.flatten(args[0])):
                refuse_masked("x", leaf)
            args = args if all(map(_is_array, leaves)) else (self.prepare(args[0]), *args[1:])
        return super().__call__(*args, **kwargs)

    def weight_without_numbers(self) -> str | None:
        """The path of the first weight that holds NaN or infinity; None where all hold finite numbers."""
        return next((w.path for w in self._float_weights if not is_finite(w.value)), None)

    @property
    def _float_weights(self) -> list[keras.Variable]:
        return [weight for weight in self.weights if tf.as_dtype(weight.dtype).is_floating]

    def of_numbers(self, found: Any, refused: bool = False, may_be_infinite: bool = False) -> Any:
        """What the model has made, arrays and tensors; what the weights have to do with NaN and infinity in it is told.

        A warning tells of such numbers where the weights are finite; not of infinity where that ``may_be``, as of the
        logarithm of 0.

        Raises:
            ValueError: A weight is no finite number, or what was made is to be ``refused`` in any case.
        """
        parts = [np.asarray(part) for part in tf.nest.flatten(found)]
        if bad := sum(int(np.sum(~np.isfinite(part))) for part in parts):
            self.check_weights()
            count, sizes = sum(part.size for part in parts), {w.path: _size(w.value) for w in self._float_weights}
            largest = max(sizes, key=sizes.__getitem__)
            told = (
                f"{bad} of {count} numbers that the model gives are NaN or infinite. Its weights are finite, up to "
                f"{sizes[largest]:g} in {largest}: look at x there, or train with a smaller learning rate."
            )
            if refused:
                raise ValueError(told)
            if not may_be_infinite or any(np.isnan(part).any() for part in parts):
                warnings.warn(told, stacklevel=3)
        return found

    def check_weights(self) -> None:
        """Raise ValueError where a weight is no finite number: nothing can be said by such a model."""
        if path := self.weight_without_numbers():
            raise ValueError(
                f"The weight {path} holds NaN or infinity, so that the model gives no numbers: train it again, with a "
                "smaller learning rate and callbacks.StopAtNaN(), which keeps the last weights that were numbers, or "
                "load weights of before."
            )

    def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **unknown: Any) -> None:
        """Keras's ``save``, to a ``.keras`` file: an h5 file could not hold the parts of the model, nor be loaded.

        A class or function that Keras will not find when it loads the file is warned of by its name. The file is there
        when it is whole: a stop leaves the old one. Where one is there and ``overwrite`` is False, Keras would wait for
        an answer at the keyboard; here it is an error.

        Raises:
            ValueError: For another kind of file.
            FileExistsError: It is there already, and is not to be overwritten.
            OSError: It cannot be written.
        """
        refuse_unknown(self.save, unknown, "The optimiser's state is saved with a compiled model.")
        check_truth(overwrite=overwrite, **({} if zipped is None else {"zipped": zipped}))
        name = str(filepath)
        if name.endswith((".h5", ".hdf5")):
            raise ValueError(f"{filepath} is {saving.NO_H5}")
        zipped = not name.startswith("hf://") if zipped is None else zipped
        if zipped != name.endswith(".keras"):
            kind = "a file that ends in .keras" if zipped else "a folder, whose name does not end in .keras"
            told = f"filepath is {name!r}, expected {kind}"
            raise ValueError(f"{told}; a SavedModel is written by tfvae.export(vae, folder).")
        check_path(in_stores=True, filepath=filepath)
        saving.warn_of_unregistered(self, filepath)
        if path := self.weight_without_numbers():
            warnings.warn(f"The weight {path} holds NaN or infinity, which {filepath} has then too.", stacklevel=2)
        with saving.written(filepath, overwrite) as draft, saving.without_lambda_warning():
            super().save(draft, zipped=zipped)

    def save_weights(
        self, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None, **unknown: Any
    ) -> None:
        """Keras's ``save_weights``; see ``save`` for what a stop leaves and for ``overwrite``.

        Raises:
            ValueError, FileExistsError, OSError: As ``save`` does.
        """
        refuse_unknown(self.save_weights, unknown)
        check_truth(overwrite=overwrite)
        check_path(in_stores=True, filepath=filepath)
        if max_shard_size is not None:
            check_number(0, is_open=True, max_shard_size=max_shard_size)
        ending = ".weights.h5" if max_shard_size is None else ".weights.json"
        if not str(filepath).endswith(ending):
            raise ValueError(f"filepath is {str(filepath)!r}, expected a file that ends in {ending}.")
        if max_shard_size is None:
            with saving.written(filepath, overwrite) as draft:
                super().save_weights(draft)
            return
        saving.check_free(filepath, overwrite)
        with saving.told(filepath, "written"), _in_a_sentence("max_shard_size", max_shard_size, "more GB, or None"):
            super().save_weights(filepath, max_shard_size=max_shard_size)

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **unknown: Any) -> None:
        """Keras's ``load_weights``: all of a file's weights, or none where it is another model's.

        With ``skip_mismatch`` what fits is loaded, and Keras warns of what does not.

        Raises:
            ValueError: It is no file of weights, or of another model's.
            OSError: It is not there, or cannot be read.
        """
        refuse_unknown(self.load_weights, unknown)
        check_truth(skip_mismatch=skip_mismatch)
        check_path(in_stores=True, filepath=filepath)
        if not str(filepath).endswith(_WEIGHTS):
            raise ValueError(
                f"filepath is {str(filepath)!r}, expected a file that ends in {', '.join(_WEIGHTS[:2])} or "
                f"{_WEIGHTS[2]}, as save_weights and save write them."
            )
        with saving.told(filepath, "read"):
            if not skip_mismatch:
                saving.check_layout(filepath, self._own_layout())
            super().load_weights(filepath, skip_mismatch=skip_mismatch)

    def _own_layout(self) -> dict[str, tuple[int, ...]]:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "own.weights.h5")
            super().save_weights(path)
            return saving.layout(path)

    def set_weights(self, weights: Any) -> None:
        """Keras's ``set_weights``: all of them, or none where one does not fit."""
        shapes = [tuple(weight.shape) for weight in self.weights]
        given = [_shape(weight) for weight in weights] if isinstance(weights, Sequence | np.ndarray) else None
        if given is None or len(given) != len(shapes) or isinstance(weights, str):
            came = reprlib.repr(weights) if given is None or isinstance(weights, str) else f"a list of {len(given)}"
            raise ValueError(f"weights is {came}, expected {len(shapes)} arrays, as get_weights gives them.")
        wrong = [i for i, shape in enumerate(given) if shape != shapes[i]]
        if wrong:
            i = wrong[0]
            raise ValueError(f"weights[{i}] has shape {given[i]}, expected {shapes[i]}: {self.weights[i].path}.")
        super().set_weights(weights)

    def set_state_tree(self, state_tree: Any) -> None:
        """Keras's ``set_state_tree``."""
        with _in_a_sentence("state_tree", state_tree, _TREE):
            super().set_state_tree(state_tree)

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Keras's ``summary``."""
        check_truth(expand_nested=expand_nested, show_trainable=show_trainable)
        if line_length is not None:
            check_at_least(1, line_length=line_length)
        if print_fn is not None and not callable(print_fn):
            check_kind("print_fn", print_fn, (), "a function that takes a line")
        shown: dict[str, Any] = {"expand_nested": expand_nested, "show_trainable": show_trainable}
        shown |= {"line_length": line_length, "print_fn": print_fn}
        positions_of = "where columns end, as parts of a line: numbers that grow, such as [0.4, 0.7, 1.0]"
        names = f"two names of layers, of {', '.join(layer.name for layer in self.layers)}"
        with (
            _in_a_sentence("positions", positions, positions_of, positions is not None),
            _in_a_sentence("layer_range", layer_range, names, layer_range is not None),
        ):
            super().summary(positions=positions, layer_range=layer_range, **shown)

    def get_layer(self, name: str | None = None, index: int | None = None) -> keras.layers.Layer:
        """Keras's ``get_layer``."""
        if (name is None) == (index is None):
            raise ValueError("get_layer takes a name or an index: one of them.")
        names = [layer.name for layer in self.layers]
        if index is not None:
            with _in_a_sentence("index", index, f"a whole number from 0 to {len(names) - 1}"):
                return self.layers[index]
        with _in_a_sentence("name", name, f"one of {', '.join(names)}"):
            return super().get_layer(name)

    def to_json(self, **kwargs: Any) -> str:
        """Keras's ``to_json``; the arguments are those of ``json.dumps``."""
        with _in_a_sentence("what to_json was given", kwargs, "arguments of json.dumps, such as indent=2"):
            return super().to_json(**kwargs)

    def quantize(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Keras would not find the weights of the distributions again, which it makes smaller too.

        Raises:
            ValueError: That says what to do.
        """
        raise ValueError(
            "A model with distributions is not quantized as a whole, but a network of it may be: "
            "vae.encoder.quantize('int8'), and then compile again."
        )

    def add_loss(self, loss: Any) -> NoReturn:
        """A loss that is added to the model itself would be forgotten with the next batch.

        Raises:
            ValueError: That says what to do.
        """
        raise ValueError(
            "add_loss would change nothing that is trained: a penalty belongs to a layer of the networks (its "
            "kernel_regularizer, or add_loss in its call), another bound to the objective."
        )

    def add_metric(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Keras has none any more.

        Raises:
            ValueError: That says what to do.
        """
        raise ValueError("add_metric is no more in Keras: compute it in a callback, at the end of each epoch.")

    def compute_loss(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Keras's loss of predictions and targets, which there are not; ``train_step`` and ``test_step`` ask for it.

        Raises:
            ValueError: That says what to do.
        """
        raise ValueError(
            "There is no loss of predictions: the objective is the loss. Take train_on_batch(x), test_on_batch(x) or "
            "evaluate(x)."
        )


def is_finite(value: tf.Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinite.

    Example:
        >>> is_finite(tf.constant([1.0, 2.0])), is_finite(tf.constant([1.0, np.inf]))
        (True, False)
    """
    return bool(tf.reduce_all(tf.math.is_finite(value)))


def _size(value: tf.Tensor) -> float:
    return float(tf.reduce_max(tf.abs(value)))


def _is_array(leaf: Any) -> bool:
    return tf.is_tensor(leaf) or isinstance(leaf, (np.ndarray, keras.KerasTensor, keras.Variable))


def _shape(weight: Any) -> tuple[int, ...] | None:
    try:
        return tuple(np.shape(weight))
    except ValueError:  # rows of several lengths
        return None


@contextlib.contextmanager
def _in_a_sentence(name: str, given: Any, expected: str, suspected: bool = True) -> Iterator[None]:
    """Within it, whatever is raised is that an argument is not what was expected."""
    try:
        yield
    except Exception as error:
        if not suspected or isinstance(error, OSError):
            raise
        raise ValueError(f"{name} is {reprlib.repr(given)}, expected {expected}.") from error
