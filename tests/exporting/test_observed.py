"""What a signature says of numbers that the likelihood does not score: what ``fit`` says of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfvae
from tests.exporting.test_saved_model import png
from tfvae import DistributionLayer, likelihoods, networks, observations, posteriors
from tfvae.checks import rules
from tfvae.exporting import guards


def exported(likelihood, folder) -> str:
    keras.utils.set_random_seed(0)  # a Zipf's mean near its pole is no number that two programs agree on
    nets = networks.mlp([4]), networks.mlp([4])
    return tfvae.export(tfvae.VAE(*nets, posteriors.diagonal_normal(2), likelihood, seed=0), folder)


@pytest.mark.parametrize(
    ("family", "fixed", "good", "bad"),
    [
        ("Bernoulli", {}, [0.0, 0.5, 1.0], [0.0, 128.0, 255.0]),
        ("Beta", {}, [0.1, 0.5, 0.9], [0.0, 0.5, 0.9]),
        ("Poisson", {}, [0.0, 3.0, 900.0], [0.5, 3.0, 9.0]),
        ("Poisson", {}, [0.0, 3.0, 900.0], [0.0, 3.0, 2.0**24]),
        ("Binomial", {"total_count": 4.0}, [0.0, 3.0, 4.0], [0.0, 3.0, 5.0]),
        ("Uniform", {"low": 2.0, "high": 3.0}, [2.0, 2.5, 3.0], [1.9, 2.5, 3.0]),
        ("Dirichlet", {}, [0.2, 0.3, 0.5], [0.2, 0.3, 0.6]),
        ("OneHotCategorical", {}, [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]),
        ("PlackettLuce", {}, [2.0, 0.0, 1.0], [2.0, 0.0, 2.0]),
        ("VonMisesFisher", {}, [0.6, 0.8, 0.0], [0.6, 0.9, 0.0]),
    ],
)
def test_the_graph_refuses_what_fit_refuses_in_the_same_words(family, fixed, good, bad):
    layer = DistributionLayer(family, [3], **fixed)
    graph = tf.function(lambda x: guards.observed("x", x, layer), [tf.TensorSpec([None, 3], tf.float32)])
    np.testing.assert_array_equal(graph(tf.constant([good])), np.float32([good]))
    with pytest.raises(ValueError, match="x ranges from") as told:
        observations.check(layer, tf.constant([good, bad]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="x ranges from") as refused:
        graph(tf.constant([good, bad]))
    if bad[-1] < 2.0**24:
        assert str(told.value).partition(", but ")[2] in str(refused.value)
    with pytest.raises(tf.errors.InvalidArgumentError, match="x holds NaN or infinite"):
        graph(tf.constant([good, [np.nan, np.nan, np.inf]]))


def test_what_is_looked_at_only_in_bad_requests_is_one_node_of_the_others():
    # The runtime visits each node of a branch, taken or not: inlined, the closer look took a sixth of a small request.
    layer = likelihoods.bernoulli([3])
    graph = tf.function(lambda x: guards.observed("x", x, layer), [tf.TensorSpec([None, 3], tf.float32)])
    library = graph.get_concrete_function().graph.as_graph_def().library.function
    looks = [each for each in library if any(node.op == "Assert" for node in each.node_def)]
    assert looks and all(each.attr["_noinline"].b for each in looks if "AssertGuard" not in each.signature.name)


@pytest.mark.parametrize("family", ["Bernoulli", "Poisson", "Beta", "Exponential"])
@pytest.mark.parametrize(
    "value", [-0.0, 1e-30, 1.0, 1.0000001, 2.0, -1e-30, -1.0, -np.inf, np.inf, np.nan, -np.nan, 2.0**24, 3.4e38]
)
def test_a_look_at_the_bits_says_what_a_look_at_the_numbers_says(family, value):
    layer = DistributionLayer(family, [3])
    if value == 0:
        with pytest.raises(tf.errors.InvalidArgumentError):  # it must not hide what comes before it
            guards.observed("x", tf.constant([[0.0, value, 2.0**25]]), likelihoods.bernoulli([3]))
    x = np.full([5, 3], 1.0 if family == "Poisson" else 0.5, np.float32)
    x[3, 1] = value
    try:
        observations.check(layer, tf.constant(x))
    except ValueError:
        with pytest.raises(tf.errors.InvalidArgumentError):
            guards.observed("x", tf.constant(x), layer)
    else:
        np.testing.assert_array_equal(guards.observed("x", tf.constant(x), layer), x)


def test_floats_from_0_to_255_are_refused_by_every_signature_that_takes_them(tmp_path):
    signatures = tf.saved_model.load(exported(likelihoods.bernoulli([3]), tmp_path / "m")).signatures
    x = tf.constant([[0.0, 7.0, 255.0]])
    for name, more in (("embed", {}), ("reconstruct", {}), ("score", {"noise": tf.zeros([1, 1, 2])})):
        assert np.isfinite(next(iter(signatures[name](x=x / 255.0, **more).values()))).all()
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"x ranges from.*0.*to.*255.*values in \[0, 1\].*"):
            signatures[name](x=x, **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    "likelihood", [DistributionLayer("Beta", [2, 2, 1]), DistributionLayer("Zipf", [3]), likelihoods.bernoulli([3])]
)
def test_a_model_that_takes_no_zeros_passes_every_check(likelihood, tmp_path):
    folder = exported(likelihood, tmp_path / "m")
    assert [(check.name, check.detail) for check in rules.check_export(folder) if not check.passed] == []
    if likelihood.family.__name__ == "Beta":
        signature = tf.saved_model.load(folder).signatures["embed_image_bytes"]
        black = tf.constant([png(np.zeros([2, 2, 1], np.uint8))])
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes ranges from.*above 0 and below 1"):
            signature(image_bytes=black)


def test_bytes_are_no_kind_of_x_where_none_fits(tmp_path):
    layer = DistributionLayer("Uniform", [2, 2, 1], low=5.0, high=9.0)
    assert set(tf.saved_model.load(exported(layer, tmp_path / "m")).signatures) == {
        *("serving_default", "embed", "reconstruct", "decode", "score", "sample")
    }
