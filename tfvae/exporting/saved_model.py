"""export(): a VAE becomes a SavedModel that a Beam job and a stock TF Serving both load.

The module that is saved holds the raw variables and nothing else, while the layers live in the closures of its
functions: saved in this way the model has no duplicate weights, no optimiser slots, and the C++ loader finds every
variable. A variable that no signature reads is not stored. Nothing is compiled by XLA, which a default server refuses.
"""

import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfvae.exporting import card, versions, warmup
from tfvae.exporting.provenance import Provenance
from tfvae.exporting.signatures import signatures
from tfvae.models.vae import VAE
from tfvae.pipelines import contract


def export(
    vae: VAE,
    directory: str | os.PathLike[str],
    version: int | None = None,
    warmup_batch_sizes: Sequence[int] = (1, 8, 64),
    provenance: Provenance | None = None,
) -> str:
    """Write ``directory/<version>/`` for TF Serving and ``pipelines.embed``; return its path.

    Beside the model lies its card, ``assets.extra/model_card.md`` and ``model.json``: see ``card``.

    The version is written beside its place and renamed, so that a server that watches the folder never sees a part of
    it; older versions stay as they are. What a killed export left is removed, what another is writing is not: see
    ``versions``.

    Args:
        vae: A built model.
        directory: The model's folder in the model repository, such as ``saved_models/mnist``.
        version: A positive integer; one above the largest there is by default.
        warmup_batch_sizes: Batch sizes that the server runs once for each signature when it loads the model.
        provenance: What is known of the model's data and measurements, for its card.

    Raises:
        ValueError: If the version is no positive integer, exists already, or is being written by another export.
        OSError: If it cannot be written, for a full disk say; the folder is then as it was.

    Example:
        >>> from tfvae import likelihoods, networks, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> path = export(vae, "tiny", warmup_batch_sizes=[1])
        >>> os.path.basename(path), sorted(tf.saved_model.load(path).signatures)[:3]
        ('1', ['decode', 'embed', 'reconstruct'])
    """
    base = pathlib.Path(directory)
    with versions.writing(base, version) as (folder, number):
        _write(vae, folder, base.name, number, warmup_batch_sizes, provenance or Provenance())
    return str(base / str(number))


def _write(
    vae: VAE,
    staging: pathlib.Path,
    name: str,
    version: int,
    warmup_batch_sizes: Sequence[int],
    provenance: Provenance,
) -> None:
    functions = dict(signatures(vae))
    module = tf.Module()
    module.weights = list(_read(vae, functions.values()))
    named = {contract.SERVING_DEFAULT: functions[contract.EMBED], **functions}
    with warmup.full_disk_as_os_error(staging):
        tf.saved_model.save(module, str(staging), signatures=named)
    extra = staging / contract.EXTRA
    extra.mkdir()
    loaded = tf.saved_model.load(str(staging)).signatures
    warmup.write(vae, loaded, extra / contract.WARMUP, name, warmup_batch_sizes)
    card.write(extra, card.describe(vae, loaded, name, version, provenance))


def _read(vae: VAE, functions: Iterable[Any]) -> Iterator[tf.Variable]:
    """The variables that a signature reads. A layer may hold others, such as the state of a Dropout's seeds."""
    captured = {id(tensor) for function in functions for tensor in function.captured_inputs}
    for layer in (vae.encoder, vae.posterior, vae.decoder, vae.likelihood, vae.prior):
        yield from (one.value for one in layer.variables if id(one.value.handle) in captured)
