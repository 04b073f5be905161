"""export(): a VAE becomes a SavedModel that a Beam job and a stock TF Serving both load.

The module that is saved holds the raw variables and nothing else, while the layers live in the closures of its
functions: saved in this way the model has no duplicate weights, no optimiser slots, and the C++ loader finds every
variable. A variable that no signature reads is not stored. Nothing is compiled by XLA, which a default server refuses.
"""

import os
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from tfvae.arguments import check_path
from tfvae.exporting import card, litert, versions, warmup
from tfvae.exporting.provenance import Provenance
from tfvae.exporting.signatures import module
from tfvae.exporting.signatures import signatures as all_signatures
from tfvae.models.vae import VAE, check_vae
from tfvae.pipelines import contract, storage

LITERT = "litert"
FORMATS = {"saved_model": contract.SAVED_MODEL, LITERT: contract.LITERT}


def export(
    vae: VAE,
    directory: str | os.PathLike[str],
    version: int | None = None,
    warmup_batch_sizes: Sequence[int] = (1, 8, 64),
    provenance: Provenance | None = None,
    format: str = "saved_model",
    signatures: Sequence[str] | None = None,
) -> str:
    """Write ``directory/<version>/`` for TF Serving and ``pipelines.embed``, or for LiteRT; return its path.

    Beside the model lies its card, ``assets.extra/model_card.md`` and ``model.json``: see ``card``.

    The version is written beside its place and renamed, so that a server that watches the folder never sees a part of
    it; older versions stay as they are. What a killed export left is removed, what another is writing is not: see
    ``versions``.

    Args:
        vae: A built model.
        directory: The model's folder in the model repository, such as ``saved_models/mnist`` or ``s3://lake/mnist``.
        version: A positive integer; one above the largest there is by default.
        warmup_batch_sizes: Batch sizes that the server runs once for each signature when it loads the model.
        provenance: What is known of the model's data and measurements, for its card.
        format: ``"saved_model"``, or ``"litert"`` for phones, browsers and small computers: see ``litert``.
        signatures: For LiteRT, the names of those to convert; by default all but those of whole image files.

    Raises:
        ValueError: If the version is no positive integer, exists already, or is being written by another export; if the
            folder holds versions of the other format; if LiteRT lacks what a signature needs.
        OSError: If it cannot be written, for a full disk say; the folder is then as it was.

    Example:
        >>> from tfvae import likelihoods, networks, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> path = export(vae, "tiny", warmup_batch_sizes=[1])
        >>> os.path.basename(path), sorted(tf.saved_model.load(path).signatures)[:3]
        ('1', ['decode', 'embed', 'embed_uint8'])
    """
    check_vae(vae)
    check_path(in_stores=True, directory=directory)
    base, known = os.fspath(directory), provenance or Provenance()
    in_store = storage.is_address(base)
    base = storage.absolute(base) if in_store else str(pathlib.Path(base))
    storage.refuse_other_encodings(base)
    vae.check_weights()
    _check(base, format, signatures)
    making = versions.sending(base, version) if in_store else versions.writing(pathlib.Path(base), version)
    with making as (folder, number):
        name = folder.parent.name
        if format == LITERT:
            litert.write(vae, folder, name, number, known, signatures)
        else:
            _write(vae, folder, name, number, warmup_batch_sizes, known)
    return os.path.join(base, str(number))


def _check(base: str, format: str, chosen: Sequence[str] | None) -> None:
    if format not in FORMATS:
        raise ValueError(f"format is {format!r}, expected one of {', '.join(FORMATS)}.")
    if chosen is not None and format != LITERT:
        raise ValueError("signatures are chosen for LiteRT alone: a SavedModel has all of them, so leave them out.")
    there = versions.existing_in_store(base) if storage.is_address(base) else versions.existing(pathlib.Path(base))
    for other, file in FORMATS.items():
        if other != format and any(storage.exists(os.path.join(base, str(number), file)) for number in there):
            raise ValueError(
                f"{base} holds versions in the format {other}, and a server takes the largest of any: "
                f"choose another folder for {format}."
            )


def _write(
    vae: VAE,
    staging: pathlib.Path,
    name: str,
    version: int,
    warmup_batch_sizes: Sequence[int],
    provenance: Provenance,
) -> None:
    functions = dict(all_signatures(vae))
    named = {contract.SERVING_DEFAULT: functions[contract.EMBED], **functions}
    with warmup.full_disk_as_os_error(staging):
        tf.saved_model.save(module(vae, functions.values()), str(staging), signatures=named)
    extra = staging / contract.EXTRA
    extra.mkdir()
    with storage.without_pattern(str(staging)) as folder:
        loaded = tf.saved_model.load(folder).signatures
    warmup.write(vae, loaded, extra / contract.WARMUP, name, warmup_batch_sizes)
    card.write(extra, card.describe(vae, loaded, name, version, provenance))
