"""Programs of a model that outlast the call that made them, so that the same measurement again compiles nothing."""

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from tfvae.engine import keras_private, saving

_AT_MOST = 8  # a program holds what it was compiled to, some megabytes
_PLAIN = (bool, int, float, str, bytes, tuple)

Made = TypeVar("Made")


def kept(make: Callable[..., Made]) -> Callable[..., Made]:
    """What ``make(model, *settings)`` gives, made once for the same settings as long as the model stays as it is.

    A model is another one once it is compiled, has another layer or variable, or a layer has another setting: then
    programs that were traced before would go on with the old one. Of a model whose configuration is no JSON nobody
    can tell, and nothing is kept.

    Example:
        >>> from tfvae import VAE, likelihoods, networks, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> made = kept(lambda model, size: [size])
        >>> made(vae, 3) is made(vae, 3), made(vae, 3) is made(vae, 4)
        (True, False)
    """

    @functools.wraps(make)
    def found(model: keras.Model, *settings: Any) -> Made:
        state = _state(model)
        if state is None:
            return make(model, *settings)
        programs, key = model.__dict__.setdefault("_kept", {}), (make, settings, state)
        # The parts are held too: where one goes, its address may be that of another.
        made = programs.pop(key, None) or (make(model, *settings), _parts(model))
        programs[key] = made  # the last used is the last to go
        for old in list(programs)[:-_AT_MOST]:
            programs.pop(old, None)
        return made[0]

    return found


def forget(model: keras.Model) -> None:
    """Let go of all that is kept for a model.

    Example:
        >>> forget(keras.Sequential())
    """
    model.__dict__.pop("_kept", None)


def _parts(model: keras.Model) -> list[Any]:
    return [*keras_private.layers(model), *model.variables]


@functools.cache
def _of_keras() -> frozenset[str]:
    """Names that Keras has itself on every layer and model, and sets as it goes."""
    return frozenset([*vars(keras.Model()), "stop_training", "stop_evaluating", "stop_predicting"])


def _state(model: keras.Model) -> tuple[Any, ...] | None:
    """What a program is traced by; None where that cannot be told."""
    try:
        whole = saving.config_of(model)
        config = json.dumps({**whole, "compile_config": None}, sort_keys=True)  # a learning rate moves as it trains
    except (TypeError, ValueError, NotImplementedError):
        return None
    # A layer's configuration is what its author took for it: what is plain among its attributes is looked at too.
    of_keras = _of_keras()
    plain = tuple(
        (name, repr(value))
        for layer in keras_private.layers(model)
        for name, value in sorted(vars(layer).items())
        if isinstance(value, _PLAIN) and name not in of_keras
    )
    return (config, plain, *map(id, _parts(model)))
