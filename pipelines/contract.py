"""The contract: what is called what on disk and on the wire.

The exporter writes these names; the Beam jobs, the checks and the client read them. This module imports nothing, so
that each of them may import it. ``saved_models/README.md`` shows the same to people.

A signature is an operation on a kind of observation, and its name says both: ``embed_uint8``. A kind is known by the
dtype of the tensor that carries it: float32, scaled as in training; uint8, pictures of 0 to 255, or counts and
classes as they are; string, whole PNG or JPEG files.
"""

# Signatures: operations, with what each gives.
EMBED, SCORE, RECONSTRUCT, DECODE, SAMPLE = "embed", "score", "reconstruct", "decode", "sample"
SERVING_DEFAULT = "serving_default"  # embed, under the name that a server takes where none is given
EMBEDDING, EMBEDDING_STDDEV = "embedding", "embedding_stddev"
ELBO, IMPORTANCE_WEIGHTED_BOUND = "elbo", "importance_weighted_bound"
RECONSTRUCTION = "reconstruction"
OUTPUTS = {
    EMBED: (EMBEDDING, EMBEDDING_STDDEV),  # float32 [B, D]
    SCORE: (ELBO, IMPORTANCE_WEIGHTED_BOUND),  # float32 [B], nats
    RECONSTRUCT: (RECONSTRUCTION,),  # float32 [B, *event]
    DECODE: (RECONSTRUCTION,),
    SAMPLE: (SAMPLE,),
}

# Inputs: observations by their kind, and the others.
X, IMAGE_BYTES = "x", "image_bytes"
OBSERVATION = {"float32": X, "uint8": X, "string": IMAGE_BYTES}
CONDITION = "condition"  # float32 [B, *condition], where the model has one
LIBRARY = "library"  # float32 [B], a row's total count, to decode and to sample where the likelihood is of one
Z = "z"  # float32 [B, D]
NOISE = "noise"  # float32, standard normal: [B, D] to sample, [B, K, D] to score
_SUFFIX = {"float32": "", "uint8": "_uint8", "string": "_image_bytes"}

# A SavedModel: MODEL/<version>/
TAG = "serve"
SAVED_MODEL = "saved_model.pb"
VARIABLES_INDEX = "variables/variables.index"
EXTRA = "assets.extra"
WARMUP = "tf_serving_warmup_requests"  # in EXTRA, as the two that follow
MODEL_JSON, MODEL_CARD = "model.json", "model_card.md"
LITERT = "model.tflite"  # MODEL/<version>/ of an export for LiteRT has this in place of the SavedModel, and in EXTRA
ANSWERS = "requests_and_answers"  # what Python answered when it was written
LITERT_TOLERANCE = 4e-6  # of its answers, absolute and relative
MOST_WARMUP_RECORDS = 1000  # TF Serving's limit
LARGEST_VERSION = 2**63 - 1  # TF Serving reads a version as an int64

# A prepared dataset: a TFDS folder, its features and splits; and what every job leaves.
DATASET_INFO, FEATURES = "dataset_info.json", "features.json"
KEY, LABEL = "key", "label"  # and X, CONDITION
TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
STATISTICS, REPORT, INPUTS = "statistics.json", "report.html", "inputs.jsonl"
MANIFEST = "manifest.json"  # of a whole output, written last
WORK = "_work"  # of one that is being made
COMMAND = f"{WORK}/command.json"  # how it was made, by which it is mended

# A run, and in EXTRA an export: every file with its SHA-256.
CHECKSUMS = "checksums.json"

# Embeddings: Parquet files in PARTS, with KEY, EMBEDDING, EMBEDDING_STDDEV and
PARTS = "parts"  # a folder of nothing else, so that any reader of Parquet opens it whole
SUCCESS = f"{PARTS}/_SUCCESS"  # that they are whole, for programs that wait for it
LINEAGE = "lineage.jsonl"  # which input, model and options made each of them
GENERATIONS, CURRENT = "generations", "current"  # whole states of an output that grows; the link to the one to read
ROW_SCORE = "score"  # the ELBO of a row, float32, nats


def signature(operation: str, dtype: str) -> str:
    """The name of the signature for an operation on observations of that dtype.

    Example:
        >>> signature(EMBED, "float32"), signature(SCORE, "string")
        ('embed', 'score_image_bytes')
    """
    return operation + _SUFFIX[dtype]


def score_for(embed: str) -> str | None:
    """The signature that scores what the signature ``embed`` embeds; None where the name is no one of ours.

    Example:
        >>> score_for("embed_uint8"), score_for("mine")
        ('score_uint8', None)
    """
    return {signature(EMBED, dtype): signature(SCORE, dtype) for dtype in OBSERVATION}.get(embed)


def no_dataset(directory: object) -> str:
    """The sentence on a folder that is no prepared dataset.

    Example:
        >>> no_dataset("runs")
        'runs is no prepared dataset (it has no dataset_info.json): make one with tfvae prepare.'
    """
    return f"{directory} is no prepared dataset (it has no {DATASET_INFO}): make one with tfvae prepare."


def version_number(name: str) -> int | None:
    """The version that a folder of that name holds, as TF Serving reads it; None for any other folder.

    Example:
        >>> [version_number(name) for name in ("2", "010", "notes", "incomplete-11-abcdefgh")]
        [2, 10, None, None]
    """
    is_number = name.isascii() and name.isdecimal() and int(name) <= LARGEST_VERSION
    return int(name) if is_number else None
