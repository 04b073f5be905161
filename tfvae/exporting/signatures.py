"""What a SavedModel answers: a signature is an operation on one kind of observation.

Nothing draws: where randomness is needed, standard normal noise is an input. An operation of a conditional model takes
the condition as one more input. ``pipelines.contract`` has the names.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfvae import objectives, observations
from tfvae.exporting import guards
from tfvae.families import draws
from tfvae.models.vae import VAE
from tfvae.pipelines import contract

Answer = dict[str, tf.Tensor]


class Input(NamedTuple):
    """One tensor of a request.

    Attributes:
        spec: Its name, dtype and shape, of which the first axis is the batch.
        value: What the operation sees of it, once the graph has checked it.
    """

    spec: tf.TensorSpec
    value: Callable[[tf.Tensor], tf.Tensor]


class Operation(NamedTuple):
    """What can be asked of a model.

    Attributes:
        name: The signature's, but for the suffix of a kind.
        answer: From the values of the inputs, the first by its place and the others by name, to the outputs.
        kinds: What the first input may be, a signature each.
        others: The other inputs.
    """

    name: str
    answer: Callable[..., Answer]
    kinds: Sequence[Input]
    others: Sequence[Input] = ()


def signatures(vae: VAE) -> Iterator[tuple[str, Any]]:
    """The model's signatures, by name: concrete functions."""
    for operation in operations(vae):
        for kind in operation.kinds:
            name = contract.signature(operation.name, kind.spec.dtype.name)
            yield name, traced(operation.answer, [kind, *operation.others])


def operations(vae: VAE) -> Iterator[Operation]:
    """What applies to this model: noise must lead to z for ``score``, by q(z|x), and for ``sample``, by p(z)."""
    kinds, condition = observation_kinds(vae), conditions(vae)
    floats, z = kinds[:1], tensor(contract.Z, [vae.latent_dim])
    noise, samples = tensor(contract.NOISE, [vae.latent_dim]), tensor(contract.NOISE, [None, vae.latent_dim])

    def embed(x: tf.Tensor, **c: tf.Tensor) -> Answer:
        q = vae.encode(x, **c)
        return {contract.EMBEDDING: draws.mean(q), contract.EMBEDDING_STDDEV: draws.stddev(q)}

    def score(x: tf.Tensor, noise: tf.Tensor, **c: tf.Tensor) -> Answer:
        q = vae.encode(x, **c)
        z, log_q = draws.from_noise_with_log_prob(q, _samples_first(noise))
        terms = vae.terms_at({contract.X: x, **c}, q, z, log_posterior=log_q)
        bounds = {
            contract.ELBO: objectives.elbo,
            contract.IMPORTANCE_WEIGHTED_BOUND: objectives.importance_weighted,
        }
        return {name: objective(terms).bound for name, objective in bounds.items()}

    def reconstruct(x: tf.Tensor, **c: tf.Tensor) -> Answer:
        return {contract.RECONSTRUCTION: vae({contract.X: x, **c})}

    def decode(z: tf.Tensor, **c: tf.Tensor) -> Answer:
        return {contract.RECONSTRUCTION: draws.mean(vae.decode(z, **c))}

    def sample(noise: tf.Tensor, library: tf.Tensor | None = None, **c: tf.Tensor) -> Answer:
        z = draws.from_noise(vae.prior(**c), noise)
        return {contract.SAMPLE: draws.mean(vae.decode(z, library=library, **c))}

    x = tf.constant(observations.examples(vae.likelihood, 1))
    c = {one.spec.name: tf.zeros([1, *one.spec.shape[1:]]) for one in condition}
    yield Operation(contract.EMBED, embed, kinds, condition)
    yield Operation(contract.RECONSTRUCT, reconstruct, floats, condition)
    yield Operation(contract.DECODE, decode, [z], [*condition, *libraries(vae)])
    if _takes_noise(vae.encode(x, **c)):
        yield Operation(contract.SCORE, score, kinds, [samples, *condition])
    if _takes_noise(vae.prior(**c)):
        yield Operation(contract.SAMPLE, sample, [noise], [*condition, *libraries(vae)])


def module(vae: VAE, functions: Iterable[Any]) -> tf.Module:
    """What is saved with the functions: the variables that they read, and nothing else.

    A layer may hold others, such as the state of a Dropout's seeds.
    """
    captured = {id(tensor) for function in functions for tensor in function.captured_inputs}
    layers = (vae.encoder, vae.posterior, vae.decoder, vae.likelihood, vae.prior)
    saved = tf.Module()
    saved.weights = [one.value for layer in layers for one in layer.variables if id(one.value.handle) in captured]
    return saved


def conditions(vae: VAE) -> list[Input]:
    """The condition, where the model has one."""
    return [] if vae.condition_shape is None else [tensor(contract.CONDITION, vae.condition_shape)]


def libraries(vae: VAE) -> list[Input]:
    """The total count of a row that is to be made, where the likelihood is of one."""
    if not vae.likelihood.of_library:
        return []
    spec = tf.TensorSpec([None, *vae.event_shape[:-1]], tf.float32, contract.LIBRARY)
    return [Input(spec, lambda x: guards.total(contract.LIBRARY, x, vae.event_shape[:-1]))]


def observation_kinds(vae: VAE) -> list[Input]:
    """x as a request may carry it: floats; bytes and whole files too, where bytes are x beyond doubt."""
    event = list(vae.event_shape)
    kinds = [_observations(vae, tf.float32)]
    if observations.scores_bytes(vae.likelihood):
        kinds.append(_observations(vae, tf.uint8))
        if len(event) == 3 and event[-1] in (1, 3, 4):  # that a PNG or JPEG file can have
            files = tf.TensorSpec([None], tf.string, contract.IMAGE_BYTES)
            kinds.append(Input(files, lambda contents: _observed_files(vae, contents)))
    return kinds


def _observations(vae: VAE, dtype: tf.DType) -> Input:
    spec = tf.TensorSpec([None, *vae.event_shape], dtype, contract.X)
    return Input(spec, lambda x: guards.observed(contract.X, x, vae.likelihood))


def _observed_files(vae: VAE, contents: tf.Tensor) -> tf.Tensor:
    images = guards.decoded(contents, vae.event_shape)
    return guards.observed(contract.IMAGE_BYTES, images, vae.likelihood)


def tensor(name: str, shape: Sequence[int | None]) -> Input:
    """A tensor of numbers, ``[B, *shape]``."""
    return Input(tf.TensorSpec([None, *shape], tf.float32, name), lambda x: guards.checked(name, x, shape))


def _samples_first(noise: tf.Tensor) -> tf.Tensor:
    """Noise ``[B, K, D]`` as ``[K, B, D]``, once the graph has seen that K > 0."""
    message = "noise [B, K, D] needs one sample at least: received"
    return tf.transpose(guards.require(tf.shape(noise)[1] > 0, [message, tf.shape(noise)], noise), [1, 0, 2])


def _takes_noise(distribution: Any) -> bool:
    try:
        draws.from_noise(distribution, tf.zeros([1, distribution.event_shape[-1]]))
    except NotImplementedError:
        return False
    return True


def traced(answer: Callable[..., Answer], inputs: Sequence[Input]) -> Any:
    """A concrete function of the inputs, in their order."""

    def function(*tensors: tf.Tensor) -> Answer:
        (first, x), *others = [(one.spec.name, one.value(given)) for one, given in zip(inputs, tensors, strict=True)]
        named = {name: _with_rows_of(first, x, name, value) for name, value in others}
        with keras.StatelessScope():  # an LSTM counts up the seeds of its dropout, though it is not training
            return answer(x, **named)

    specs = [one.spec for one in inputs]
    return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()


def _with_rows_of(first: str, x: tf.Tensor, name: str, value: tf.Tensor) -> tf.Tensor:
    message = [f"{name} needs a row for each row of {first}: received", tf.shape(value), f"and {first}", tf.shape(x)]
    return guards.require(tf.equal(tf.shape(value)[0], tf.shape(x)[0]), message, value)
