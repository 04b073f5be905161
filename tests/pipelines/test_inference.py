"""Any signature in a Beam pipeline of the user's own: a dict in, a dict out, beside the model in Python."""

import pickle

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.testing.util import assert_that

import tfvae
from tfvae import likelihoods, networks, posteriors
from tfvae.pipelines.errors import PipelineError
from tfvae.pipelines.inference import SignatureHandler


@pytest.fixture(scope="module")
def vae():
    nets = networks.mlp([4]), networks.mlp([4])
    return tfvae.VAE(*nets, posteriors.diagonal_normal(2), likelihoods.bernoulli([3, 1, 1]), seed=0)


@pytest.fixture(scope="module")
def exported(vae, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tfvae.export(vae, folder)
    return str(folder)


@pytest.fixture(scope="module")
def scaled(tmp_path_factory) -> str:
    """Two inputs by row, one of a free length and one for all; two outputs, one of them a scalar a row."""
    folder, module = str(tmp_path_factory.mktemp("models") / "scaled"), tf.Module()
    signature = [
        tf.TensorSpec([None, None], tf.float32, "x"),
        tf.TensorSpec([None], tf.int32, "n"),
        tf.TensorSpec([], tf.float32, "factor"),
    ]

    @tf.function(input_signature=signature)
    def scale(x, n, factor):
        return {"y": factor * x * tf.cast(n, tf.float32)[:, None], "total": tf.reduce_sum(x, axis=1)}

    module.scale = scale
    tf.saved_model.save(module, f"{folder}/1", {"scale": scale})
    return folder


def run(handler, rows, **arguments) -> list:
    return list(handler.run_inference(rows, handler.load_model(), **arguments))


def test_a_pipeline_embeds_as_python_does_with_keys_and_a_short_last_batch(vae, exported):
    x = np.random.default_rng(0).integers(0, 256, [7, 3, 1, 1]).astype(np.uint8)
    x[:, 0] = 2  # bytes of 0 and 1 alone would be asked about
    handler = SignatureHandler(exported, "embed_uint8", max_batch_size=3)
    expected = dict(enumerate(vae.embed(x)))

    def equal(found):
        assert len(found) == 7
        for key, outputs in found:
            assert sorted(outputs) == ["embedding", "embedding_stddev"]
            np.testing.assert_allclose(outputs["embedding"], expected[key], atol=1e-6)

    with beam.Pipeline() as pipeline:
        rows = pipeline | beam.Create([(i, {"x": row}) for i, row in enumerate(x)])
        assert_that(rows | RunInference(KeyedModelHandler(handler)), equal)


def test_inputs_without_a_batch_axis_are_given_once_and_lengths_may_be_free(scaled):
    handler = pickle.loads(pickle.dumps(SignatureHandler(scaled, "scale")))  # as it travels to a worker
    handler.validate_inference_args({"factor": 2.0})
    found = run(
        handler, [{"x": [1.0, 2.0], "n": 3}, {"x": np.ones(2), "n": np.int64(1)}], inference_args={"factor": 2.0}
    )
    np.testing.assert_array_equal([row["y"] for row in found], [[6, 12], [2, 2]])
    assert [float(row["total"]) for row in found] == [3.0, 2.0]
    for wrong in (None, {}, {"factor": 1.0, "other": 2}):
        with pytest.raises(ValueError, match=r"takes \['factor'\] beside its rows"):
            handler.validate_inference_args(wrong)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"x": np.zeros([3, 1, 1], np.uint8)}, "x is uint8, expected float32: no number is scaled"),
        ({"x": np.zeros([4, 1, 1], np.float32)}, r"x has shape \[4, 1, 1\], expected \[3, 1, 1\]"),
        ({"x": np.zeros(3, np.float32)}, r"x has shape \[3\], expected \[3, 1, 1\]"),
        ({"x": ["a", "b", "c"]}, "x is <U1, expected float32"),
        ({"x": [[[0.0]], [[float("nan")]], [[1.0]]]}, "x holds NaN or infinite values"),
        ({"x": [[[0.0]], [[255.0]], [[1.0]]]}, "x ranges from"),
        ({"y": [0.0, 1.0, 1.0]}, r"a row has \['y'\], expected \['x'\]"),
        ({"x": [[[0.0]], [[1e300]], [[1.0]]]}, "x holds numbers that float32 does not have"),
        ({"x": [[[0]], [[2**24 + 1]], [[1]]]}, "x holds numbers that float32 does not have"),
        ({"x": np.ma.masked_less(np.float32([0, 1, 1]).reshape(3, 1, 1), 0.5)}, "x has masked cells"),
        ({"x": [0.0, [1.0], 1.0]}, "x is list, which makes no array"),
        ([0.0, 1.0, 1.0], r"a row is list, expected a mapping of \['x'\]"),
        (None, r"a row is NoneType, expected a mapping of \['x'\]"),
        ({"x": [0.0, 1.0, 1.0], "label": 3}, r"a row has \['label', 'x'\], expected \['x'\]"),
    ],
)
def test_a_row_that_does_not_fit_is_told_and_takes_no_other_with_it(vae, exported, row, sentence):
    good = {"x": np.float32([0, 0.5, 1]).reshape([3, 1, 1])}
    with pytest.raises(ValueError, match=sentence):
        run(SignatureHandler(exported), [good, row, good])
    handler = SignatureHandler(exported, keep_errors=True)
    first, bad, last = run(handler, [good, row, good])
    assert handler.get_num_bytes([good, row]) >= 12  # which Beam asks first
    assert list(bad) == ["error"]
    for outputs in (first, last):
        np.testing.assert_allclose(outputs["embedding"], vae.embed(good["x"][None])[0], atol=1e-6)


def test_whole_files_are_bytes_to_their_last_zero(tmp_path):
    module, spec = tf.Module(), tf.TensorSpec([None], tf.string, "image_bytes")
    module.size = tf.function(lambda image_bytes: {"size": tf.strings.length(image_bytes)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "1"), {"size": module.size})
    handler = SignatureHandler(str(tmp_path), "size")
    assert [int(row["size"]) for row in run(handler, [{"image_bytes": b"a\0\0"}, {"image_bytes": b""}])] == [3, 0]
    assert handler.get_num_bytes([{"image_bytes": b"a\0\0"}]) == 3
    with pytest.raises(ValueError, match="image_bytes is str, expected bytes"):
        run(handler, [{"image_bytes": "a"}])


def test_numbers_that_the_dtype_does_not_have_are_refused(scaled):
    with pytest.raises(ValueError, match="n holds numbers that int32 does not have"):
        run(SignatureHandler(scaled, "scale"), [{"x": [1.0], "n": 2**40}], inference_args={"factor": 1.0})


def test_what_is_no_model_or_no_signature_is_told(exported, tmp_path):
    with pytest.raises(PipelineError, match="holds no SavedModel"):
        SignatureHandler(str(tmp_path))
    with pytest.raises(PipelineError, match=r"has no signature 'mine', it has \['decode'"):
        SignatureHandler(exported, "mine")
    assert run(SignatureHandler(exported), []) == []
    for wrong in (0, -1, 1.5, "3", True):
        with pytest.raises(PipelineError, match=r"max_batch_size is .*, expected a whole number, 1 or more"):
            SignatureHandler(exported, max_batch_size=wrong)
