"""The programs of ``tfvae.VAE`` as XLA modules, with their inputs and what TensorFlow makes of them on the CPU.

A compiled function takes its captured variables as parameters after its arguments, in the order of its captures, and
gives the new value of each that it sets after what it returns. Which is which stands in the module's own alias list.
"""

import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfvae
from benchmarks import models
from benchmarks.gpu.carried import CHECKED_STEPS, Case, Program
from tfvae.engine.batches import Data
from tfvae.families import draws

EMBED_ROWS = 1024  # VAE.embed's own batch
LEARNING_RATE = 1e-3
_ALIAS = re.compile(r"\{(\d+)\}: \((\d+), \{\}, (?:may|must)-alias\)")


def vae(model: str, hidden: int, filters: list[int], latent: int) -> tfvae.VAE:
    """784 pixels through one hidden layer, or 28x28x1 through strided convolutions and their mirror."""
    keras.utils.set_random_seed(0)
    networks = tfvae.networks
    convolutional = model == "conv"
    event_shape = [28, 28, 1] if convolutional else [784]
    return tfvae.VAE(
        encoder=networks.conv_encoder(filters) if convolutional else networks.mlp([hidden]),
        decoder=models.transposed_decoder(filters[::-1]) if convolutional else networks.mlp([hidden]),
        posterior=tfvae.posteriors.diagonal_normal(latent),
        likelihood=tfvae.likelihoods.bernoulli(event_shape),
        seed=0,
    )


def case(
    model: str,
    rows: np.ndarray,
    batch_size: int,
    steps: int | None = None,
    hidden: int = 500,
    filters: tuple[int, ...] = (32, 64),
    latent: int = 20,
) -> Case:
    """Both programs of a model at a batch size, for rows ``[N, 784]``; K is ``fit``'s own where ``steps`` is None.

    The train program is carried with the results of its first ``CHECKED_STEPS``: how many it runs is a parameter.

    Raises:
        ValueError: If the rows do not fill one call of K steps.
    """
    steps = steps or tfvae.engine.batches.default_steps_per_execution(batch_size)
    if len(rows) < steps * batch_size:
        raise ValueError(f"{steps} steps of {batch_size} rows need {steps * batch_size}, received {len(rows)}.")
    built = vae(model, hidden, list(filters), latent)
    data = tf.constant(rows.reshape(len(rows), *built.event_shape))
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    built.compile(optimizer=optimizer, steps_per_execution=steps, jit_compile=True)
    embed, _ = program(tfvae.engine.xla.compiled(lambda x: draws.mean(built.encode(x))), [data[:EMBED_ROWS]])
    built.make_train_function()
    order = np.random.default_rng(0).permutation(np.arange(len(rows), dtype=np.int32))[: steps * batch_size]
    counts = np.full([steps], batch_size, np.int32)
    rows = Data(built.prepare(data))
    arguments = [rows, order.reshape(steps, batch_size), counts, np.int32(min(steps, CHECKED_STEPS))]
    train, places = program(built.train_function.program, arguments)
    return Case(
        model=model,
        event_shape=list(built.event_shape),
        steps=steps,
        batch_size=batch_size,
        epsilon=optimizer.epsilon,
        learning_rate=LEARNING_RATE,
        weights=[places[id(v.value)] for v in (*built.recognition_weights, *built.generative_weights)],
        metrics=[places[id(v.value)] for metric in built.metrics for v in metric.variables],
        train=train,
        embed=embed,
    )


def program(function: Any, arguments: list[Any]) -> tuple[Program, dict[int, int]]:
    """The program of a compiled ``tf.function``, run once here, and the parameter that each of its variables became.

    Raises:
        RuntimeError: If the program's results are not what the function returns and the variables that it sets.
    """
    arguments = tf.nest.map_structure(tf.convert_to_tensor, arguments)
    graph = function.get_concrete_function(*arguments).graph
    variables = {id(variable.handle): variable for variable in graph.variables}
    captured = [variables.get(id(outside), outside) for outside, _ in graph.captures]
    compiler_ir = function.experimental_get_compiler_ir(*arguments)
    header = compiler_ir(stage="hlo").split("\n", 1)[0]
    alias = {int(result): int(parameter) for result, parameter in _ALIAS.findall(header)}
    given = tf.nest.flatten(arguments)
    inputs = [value.numpy() for value in (*given, *captured)]
    hlo = compiler_ir(stage="hlo_serialized")
    results = function(*arguments)
    named = _named(results)
    if list(alias) != list(range(len(named), len(named) + len(alias))):
        raise RuntimeError(f"The function returns {len(named)} values, but its program sets variables in {alias}.")
    everything = [*given, *captured]
    outputs = [*named.values(), *(everything[parameter] for parameter in alias.values())]
    places = {id(value): i for i, value in enumerate(everything)}
    return Program(hlo, inputs, [value.numpy() for value in outputs], list(named), list(alias.values())), places


def _named(results: Any) -> dict[str, tf.Tensor]:
    if isinstance(results, dict):
        return dict(sorted(results.items()))
    if isinstance(results, (list, tuple)):
        return {str(i): result for i, result in enumerate(results)}
    return {"result": results}
