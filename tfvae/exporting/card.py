"""The model card: what an exported model is, what it takes, what it was trained on and how good it was found to be.

It lies beside the warm-up file: ``assets.extra/model.json`` for programs and, written from it,
``assets.extra/model_card.md`` for people, with the head in YAML that Hugging Face's hub reads. Neither holds a date or
a path, so that the same model has the same card wherever it is exported. What nobody told the exporter is null in the
one and "unknown" in the other.
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfvae import __version__, observations, priors, tables
from tfvae.distribution_layer import DistributionLayer
from tfvae.exporting.provenance import Provenance
from tfvae.mixed_layer import MixedLayer
from tfvae.models.vae import VAE
from tfvae.pipelines import contract

SCHEMA_VERSION = 1

_TAGS = {"TensorFlow": "tensorflow", "LiteRT": "litert"}
_UNCHECKED = {
    "LiteRT": [
        "LiteRT checks no input: hold shape and scale to what stands below, and never ask for no rows, which can crash "
        "the process. A row with a value that is not finite is answered by NaN."
    ]
}
_SCALES = {
    contract.Z: "a point of the latent space, as q(z|x) and p(z) have it",
    contract.NOISE: "standard normal, drawn by the caller",
    contract.LIBRARY: "the total count that the answer shall have, from 0 up",
    contract.CONDITION: "what the model was told beside each row, as in training",
}


def describe(
    vae: VAE,
    signatures: Mapping[str, Any],
    name: str,
    version: int,
    provenance: Provenance,
    runtime: str = "TensorFlow",
) -> dict[str, Any]:
    """What ``model.json`` holds.

    Args:
        vae: The model.
        signatures: The signatures as a loaded SavedModel has them.
        name: The model's, under which it is served.
        version: Its version.
        provenance: What is known of data and measurements.
        runtime: What runs it.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "version": version,
        "runtime": runtime,
        "posterior": _family(vae.posterior),
        "likelihood": _family(vae.likelihood),
        "prior": _family(vae.prior),
        "latent_dim": vae.latent_dim,
        "event_shape": list(vae.event_shape),
        "signatures": {key: _contract(vae, signatures[key]) for key in sorted(signatures)},
        "trained_on": dataclasses.asdict(provenance.trained_on),
        "measured": dataclasses.asdict(provenance.measured),
        "license": provenance.license,
        "versions": {
            "tfvae": __version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "tensorflow_probability": tfp.__version__,
        },
    }


def _family(layer: Any) -> dict[str, Any]:
    if isinstance(layer, MixedLayer):
        columns = [{**_family(part), "columns": part.event_shape[0]} for part in layer.parts]
        return {"family": "Mixed", "constraints": {}, "fixed": {}, "shared": [], "parts": columns}
    if not isinstance(layer, (DistributionLayer, priors.Family)):  # of one that learns more, its name says what it is
        held = {"training_rows": layer.num_exemplars} if isinstance(layer, priors.ExemplarPrior) else {}
        return {"family": type(layer).__name__, "constraints": {}, "fixed": {}, "shared": [], **held}
    family = layer.describe()
    return {
        "family": family.name,
        "constraints": family.constraints,
        "fixed": family.fixed,
        "shared": family.shared,
        **({"missing": True} if family.missing else {}),
    }


def _contract(vae: VAE, signature: Any) -> dict[str, Any]:
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    return {
        "inputs": {key: {**_spec(inputs[key]), "scale": _scale(vae, inputs[key])} for key in sorted(inputs)},
        "outputs": {key: _spec(outputs[key]) for key in sorted(outputs)},
    }


def _spec(spec: tf.TensorSpec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def _scale(vae: VAE, spec: tf.TensorSpec) -> str:
    if spec.dtype in (tf.string, tf.uint8):
        of = f"a PNG or JPEG file of shape {list(vae.event_shape)}, " if spec.dtype == tf.string else ""
        if observations.is_picture(vae.likelihood):
            return f"{of}0 to 255, divided by 255 in the graph"
        return f"{of}{observations.scale(vae.likelihood)}, as they are"
    if spec.name in _SCALES:
        return _SCALES[spec.name]
    noise = f", scored as they come; training drew them by {type(vae.noise).__name__}" if vae.noise else ""
    return observations.scale(vae.likelihood) + noise


def write(folder: pathlib.Path, description: Mapping[str, Any]) -> None:
    """Write ``model.json`` and ``model_card.md`` from what ``describe`` gave."""
    text = json.dumps(description, indent=2, sort_keys=True, allow_nan=False)
    (folder / contract.MODEL_JSON).write_text(text + "\n", encoding="utf-8")
    (folder / contract.MODEL_CARD).write_text(markdown(description), encoding="utf-8")


def markdown(description: Mapping[str, Any]) -> str:
    """The card: what ``describe`` gave, for people."""
    data, measured = description["trained_on"], description["measured"]
    return _head(description) + "\n\n".join(
        [
            f"# {_text(description['name'])}, version {description['version']}",
            "A variational autoencoder (arXiv 1312.6114), exported by tfvae for "
            f"{description['runtime']}; `model.json` says the same to programs.",
            *_UNCHECKED.get(description["runtime"], ()),
            "## Model",
            _table(
                ["part", "what it is"],
                [
                    ["q(z\\|x)", _family_text(description["posterior"])],
                    ["p(x\\|z)", _family_text(description["likelihood"])],
                    ["p(z)", _family_text(description["prior"])],
                    ["length of z", str(description["latent_dim"])],
                    ["shape of x", str(description["event_shape"])],
                ],
            ),
            "## Signatures",
            _table(["signature", "input", "scale", "output"], _signature_rows(description["signatures"])),
            "## Data",
            _table(["fact", "value"], [*_dataset_rows(data), ["licence of the model", _text(description["license"])]]),
            "## Measured",
            _table(["measure", "value"], _measured_rows(measured)),
            "## Written with",
            _table(["package", "version"], [[key, value] for key, value in description["versions"].items()]),
        ]
    ) + "\n"  # fmt: skip


def _head(description: Mapping[str, Any]) -> str:
    """YAML between two lines of dashes; a JSON text is a YAML text too, whatever is in a name."""
    facts: dict[str, Any] = {
        "license": description["license"] or "unknown",
        "library_name": "tfvae",
        "tags": ["tfvae", "variational-autoencoder", _TAGS[description["runtime"]]],
        "pipeline_tag": "feature-extraction",
    }
    metrics, dataset = _metrics(description["measured"]), description["measured"]["dataset"]
    if metrics:
        facts["metrics"] = [metric["type"] for metric in metrics]
        name = dataset["name"] or "unknown"
        data = {"name": dataset["folder"] or name, "type": name, "split": description["measured"]["split"] or "unknown"}
        result = {"task": {"type": "feature-extraction"}, "dataset": data, "metrics": metrics}
        facts["model-index"] = [{"name": description["name"], "results": [result]}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def _metrics(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = {"elbo": "ELBO, nats", "log_marginal": "log p(x), nats"}
    scored = f" ({measured['observations']})" if measured["observations"] else ""
    return [
        {"type": key, "name": name + scored, "value": measured[key]}
        for key, name in names.items()
        if measured[key] is not None
    ]


def _signature_rows(signatures: Mapping[str, Any]) -> list[list[str]]:
    def tensors(side: Mapping[str, Any]) -> str:
        return ", ".join(f"`{key}` {spec['dtype']} {_shape(spec['shape'])}" for key, spec in side.items())

    return [
        [
            f"`{name}`",
            tensors(contract["inputs"]),
            "; ".join(f"`{key}`: {_text(spec['scale'])}" for key, spec in contract["inputs"].items()),
            tensors(contract["outputs"]),
        ]
        for name, contract in signatures.items()
    ]


def _dataset_rows(dataset: Mapping[str, Any]) -> list[list[str]]:
    names = {"name": "data set", "folder": "folder", "manifest_sha256": "SHA-256 of its manifest"}
    rows = [[title, _text(dataset[key])] for key, title in names.items()]
    by = "standardized: by the means and standard deviations in its manifest"
    return [*rows, ["columns", by]] if dataset["standardized"] else rows


def _measured_rows(measured: Mapping[str, Any]) -> list[list[str]]:
    effective = measured["median_effective_sample_size"]
    draws = f"samples of z {_text(measured['num_samples'])}"
    draws += "" if effective is None else f", effective {effective:.0f}"
    if measured["monte_carlo_standard_error"] is not None:
        draws += f", Monte Carlo error {_nats(measured, 'monte_carlo_standard_error')}"
    elif measured["log_marginal"] is not None and effective is not None:
        draws += ": too few to tell an error, so a lower bound"
    return [
        *_dataset_rows(measured["dataset"]),
        ["split", _text(measured["split"])],
        ["rows", _text(measured["rows"])],
        ["observations", _text(measured["observations"])],
        ["ELBO", f"{_nats(measured, 'elbo')}, standard error {_nats(measured, 'elbo_standard_error')}"],
        ["log p(x)", f"{_nats(measured, 'log_marginal')}, standard error "
                     f"{_nats(measured, 'log_marginal_standard_error')} ({draws})"],
        *([_text(name), _text(tables.findings(found))] for name, found in (measured["judges"] or {}).items()),
    ]  # fmt: skip


def _nats(measured: Mapping[str, Any], key: str) -> str:
    return "unknown" if measured[key] is None else f"{measured[key]:.3f} nats"


def _family_text(part: Mapping[str, Any]) -> str:
    if "parts" in part:
        return "; ".join(f"{one['columns']} of {_family_text(one)}" for one in part["parts"])
    parameters = [f"{key} fixed at {_number(value)}" for key, value in part["fixed"].items()]
    parameters += [f"{key} learned and the same for every row" for key in part["shared"]]
    parameters += [f"{key} constrained by {value}" for key, value in part["constraints"].items()]
    parameters += ["of the numbers that are not missing"] if part.get("missing") else []
    parameters += [f"of {part['training_rows']} training rows, which the files hold"] if "training_rows" in part else []
    return _text(part["family"] + (f" ({', '.join(parameters)})" if parameters else ""))


def _number(value: Any) -> str:
    return "the values in model.json" if isinstance(value, list) else f"{value:g}"


def _shape(shape: list[int | None] | None) -> str:
    return "of any shape" if shape is None else f"[{', '.join('free' if n is None else str(n) for n in shape)}]"


def _text(value: Any) -> str:
    """A value in a cell of a table, which a bar or a line's end would leave."""
    return "unknown" if value is None else re.sub(r"([|\\`*_<>\[\]#])", r"\\\1", " ".join(str(value).split()))


def _table(head: list[str], rows: list[list[str]]) -> str:
    return tables.markdown([head, *rows])
