"""The wrong thing at a constructor or a method: our sentence, with what came, and no other library's."""

import functools
import os
import pathlib

import keras
import numpy as np
import pyarrow as pa
import pytest

from tfvae import (
    VAE,
    DistributionLayer,
    callbacks,
    data,
    evaluation,
    export,
    likelihoods,
    networks,
    objectives,
    plots,
    posteriors,
    priors,
    runs,
)
from tfvae.arguments import refuse_sparse
from tfvae.checks.rules import check_export
from tfvae.pipelines import embed, preprocess
from tfvae.pipelines.embedding.saved_models import find_model
from tfvae.pipelines.errors import PipelineError
from tfvae.serving import Client


def a_vae(**more) -> VAE:
    return VAE(networks.mlp([2]), networks.mlp([2]), posteriors.diagonal_normal(2), likelihoods.bernoulli([3]), **more)


def compiled() -> VAE:
    vae = a_vae()
    vae.compile()
    return vae


@pytest.mark.parametrize(
    ("door", "message"),
    [
        (lambda: DistributionLayer("Normal", 2), r"event_shape is 2, expected a list of sizes.*such as \[2\]"),
        (lambda: DistributionLayer("Normal", "ab"), "event_shape is 'ab', expected a list of sizes"),
        (lambda: DistributionLayer("Normal", None), "event_shape is None, expected a list of sizes"),
        (lambda: DistributionLayer("Normal", [2.5]), r"event_shape is \[2.5\], expected a list of sizes"),
        (lambda: likelihoods.bernoulli(784), r"event_shape is 784, expected .*such as \[784\]"),
        (lambda: posteriors.diagonal_normal([2]), r"latent_dim must be a whole number of 1 or more, received \[2\]"),
        (lambda: posteriors.full_normal(0), "latent_dim must be at least 1, received 0"),
        (lambda: a_vae(condition_shape=3), r"condition_shape is 3, expected a list of sizes"),
        (lambda: a_vae(objective="elbo"), "objective is 'elbo', expected .*objectives.elbo"),
        (lambda: a_vae(noise="binarized"), r"noise is 'binarized', expected .*observations.Binarized\(\)"),
        (lambda: a_vae(weight_prior=3), "weight_prior is 3, expected .*priors.WeightPrior"),
        (lambda: a_vae(num_samples="many"), "num_samples must be a whole number of 1 or more, received 'many'"),
        (lambda: a_vae().sample(-1), "n must be at least 0, received -1"),
        (lambda: a_vae().sample("a"), "n must be a whole number of 0 or more, received 'a'"),
        (lambda: a_vae().embed([[0.0, 1.0, 0.0]], batch_size=0), "batch_size must be at least 1, received 0"),
        (lambda: objectives.Weighted(10**400), "beta is 1000.*, expected a finite number of 0 or more"),
        (lambda: a_vae(num_samples=10**20), r"num_samples must be at most 2,147,483,647, received 100,000,000,"),
        (
            lambda: a_vae().elbo(X, num_samples=10**9),
            r"samples of a batch would be 1,000,000,000 x 1 x 3 numbers",
        ),
        (lambda: a_vae().sample(10**9), r"The samples would be 1,000,000,000 x 3 numbers, more than .*: choose fewer"),
        (lambda: a_vae().embed(X, batch_size=2**31), "batch_size must be at most 2,147,483,647"),
        (
            lambda: compiled().fit(X, validation_split=float("inf")),
            "validation_split is inf, expected a finite",
        ),
        (
            lambda: objectives.Weighted(float("inf")),
            "beta is inf, expected a finite number of 0 or more, or",
        ),
        (lambda: objectives.Renyi(float("inf")), "alpha is inf, expected a finite number, or -inf for VR-max"),
        (lambda: DistributionLayer("Normal", [10**20]), r"event_shape must hold sizes of 2,147,483,647 at most"),
        (lambda: DistributionLayer("Normal", [50_000, 50_000]), "An event would be 50,000 x 50,000 numbers"),
        (
            lambda: DistributionLayer("Normal", [10**8])(np.ones([1, 20])),
            "would be 20 x 200,000,000 numbers",
        ),
        (
            lambda: networks.Masked(2, [10**6])(np.ones([1, 3000], "f")),
            "would be 3,000 x 1,000,000",
        ),
        (lambda: priors.Mixture(10**6, 10**4), "A mixture would be 10,000 x 1,000,000 numbers"),
        (lambda: priors.Mixture(10**5, full_covariance=True), "A mixture would be 10 x 100,000 x 100,000 numbers"),
        *(
            (lambda door=door: door(10**9), r"latent_dim must be at most 16,777,216, received 1,000,000,000")
            for door in (
                *(priors.Flow, priors.Autoregressive, priors.StandardNormal, priors.Mixture, priors.Resampled),
                *(posteriors.diagonal_normal, posteriors.coupling, posteriors.planar),
            )
        ),
        *(
            (lambda door=door, name=name: door(name=name), r"name is b?'a/?b?', expected a string without '/'")
            for name in (b"a", "a/b")
            for door in (
                a_vae,
                functools.partial(DistributionLayer, "Normal", [3]),
                functools.partial(priors.Mixture, 2),
                functools.partial(networks.mlp, [3]),
                functools.partial(networks.Masked, 2),
            )
        ),
    ],
)
def test_the_wrong_argument_is_told_in_a_sentence(door, message):
    with pytest.raises(ValueError, match=message):
        door()


LAYERS, X = keras.layers, [[0.0, 1.0, 0.0]]


def with_part(**part):
    given = {"encoder": networks.mlp([2]), "decoder": networks.mlp([2]), "posterior": posteriors.diagonal_normal(2)}
    return VAE(**{**given, "likelihood": likelihoods.bernoulli([3]), **part})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            lambda: {"encoder": keras.Sequential([LAYERS.Input([5]), LAYERS.Dense(4)])},
            r"The encoder does not go .*\(1, 3\).* 5",
        ),
        (
            lambda: {"encoder": LAYERS.Conv2D(3, 3)},
            r"The encoder does not go with x of shape \(1, 3\), one row: .*ndim=4",
        ),
        (
            lambda: {"encoder": LAYERS.Lambda(lambda x: 1 / 0)},
            "The encoder does not go .*: ZeroDivisionError: division by zero",
        ),
        (
            lambda: {"encoder": LAYERS.Lambda(lambda x: [x, x])},
            r"The encoder gives a list for one row, expected a tensor",
        ),
        (
            lambda: {"encoder": LAYERS.Lambda(lambda x: {"a": x})},
            r"The encoder gives a dict for one row, expected a tensor",
        ),
        (
            lambda: {"decoder": LAYERS.Lambda(lambda z: None)},
            r"The decoder gives a NoneType for one z, expected features",
        ),
        (lambda: {"decoder": LAYERS.Lambda(lambda z: z[0])}, r"The decoder gives features of shape \(2,\) for one z"),
        (
            lambda: {"decoder": keras.Sequential([LAYERS.Input([5])])},
            r"The decoder does not go with z of shape \(1, 2\)",
        ),
        (lambda: {"prior": priors.VampPrior(2, [7])}, r"The prior does not go with z of shape \(1, 2\).*\(500, 7\)"),
        (
            lambda: {"likelihood": likelihoods.missing(DistributionLayer("OneHotCategorical", [3]))},
            "^OneHotCategorical cannot leave out what is missing",
        ),
        (
            lambda: {"posterior": likelihoods.missing(posteriors.diagonal_normal(2))},
            "The posterior leaves out what is missing",
        ),
        (
            lambda: {"prior": priors.Family("Uniform", [2], low=-9.0, high=9.0)},
            "gives numbers below -9, where the prior Uniform",
        ),
        (
            lambda: {"prior": priors.Family("Gamma", [2], concentration=2.0, rate=1.0)},
            "below 0, where the prior Gamma has no",
        ),
        (
            lambda: {"prior": priors.Family("Poisson", [2], rate=1.0)},
            "The prior Poisson is of counts 0, 1, 2, ..., between which",
        ),
        (
            lambda: {
                "posterior": posteriors.truncated_normal(2, 0.0, 2.0),
                "prior": priors.Family("Uniform", [2], low=0.0, high=1.0),
            },
            "The posterior TruncatedNormal gives numbers above 1, where the prior Uniform has no density",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_told_in_one_line(part, message):
    with pytest.raises(ValueError, match=message) as raised:
        with_part(**part())
    assert len(str(raised.value).splitlines()) == 1


def test_parts_of_one_support_go_together():
    with_part(posterior=DistributionLayer("Beta", [2]), prior=priors.Family("Uniform", [2], low=0.0, high=1.0)).elbo(X)
    with_part(posterior=posteriors.truncated_normal(2)).elbo(X)  # N(0, I) has a density wherever z is


@pytest.mark.parametrize(
    ("door", "message"),
    [
        (lambda: networks.mlp(500), r"hidden is 500, expected a list of sizes.*such as \[500\]"),
        (lambda: networks.mlp([4], "rélu"), "activation is 'rélu', expected a function, or one that Keras knows"),
        (lambda: networks.conv_encoder(3), "filters is 3, expected a list of sizes"),
        (lambda: networks.conv_decoder(3), "event_shape is 3, expected a list of sizes"),
        (lambda: networks.conv_decoder([8, 8, 1], []), "filters is [[][]], expected one size at least"),
        (lambda: networks.ResizeConv2D("a"), r"filters is \['a'\], expected a list of sizes"),
        (lambda: DistributionLayer("Normal", [2], scale="a"), "scale is 'a', expected a number or an array"),
        (lambda: DistributionLayer("Normal", [2], shared=3), "shared is 3, expected a list of parameters"),
        (lambda: DistributionLayer("Normal", [2], shared="scale"), "shared is 'scale', expected a list of parameters"),
        (lambda: DistributionLayer("Normal", [2], constraints=["exp"]), r"constraints is \['exp'\], expected"),
        (lambda: DistributionLayer("Normal", [2], bias_initializer="a"), "bias_initializer is 'a', expected one that"),
        (lambda: priors.Mixture("a"), "latent_dim must be a whole number of 1 or more, received 'a'"),
        (lambda: priors.VampPrior(2, 3), r"x_shape is 3, expected a list of sizes.*\[3\]"),
        (lambda: priors.VampPrior(2, [3], constraint=["a"]), r"constraint is \['a'\], expected one of"),
        (lambda: priors.Family("Normal", 2), r"event_shape is 2, expected a list of sizes.*\[2\]"),
        (lambda: priors.StandardNormal("a"), "latent_dim must be a whole number"),
        (lambda: priors.WeightPrior("a"), "num_rows must be a whole number of 1 or more, received 'a'"),
        (lambda: priors.WeightPrior(3, "a"), "scale is 'a', expected a number above 0"),
        (lambda: priors.fit("a", a_vae(), X), "prior is 'a', expected one of priors"),
        (lambda: priors.fit(priors.Mixture(2), "a", X), "vae is 'a', expected a tfvae.VAE"),
        (lambda: objectives.Weighted("a"), "beta is 'a', expected 0 or more, or a schedule"),
        (lambda: objectives.Weighted(float("nan")), "beta is nan, expected 0 or more"),
        (lambda: objectives.FreeBits("a"), "nats is 'a', expected 0 or more"),
        (lambda: objectives.FreeBits(0.1, group_size="a"), "group_size must be a whole number"),
        (lambda: a_vae().decode("a"), "z is 'a', expected numbers"),
        (lambda: evaluation.log_marginal("a", X), "vae is 'a', expected a tfvae.VAE"),
        (lambda: evaluation.annealed_log_marginal("a", X), "vae is 'a', expected a tfvae.VAE"),
        (lambda: evaluation.bidirectional("a", 3), "vae is 'a', expected a tfvae.VAE"),
        (lambda: evaluation.hmc_log_marginal("a", X), "vae is 'a', expected a tfvae.VAE"),
        (lambda: evaluation.sample_posterior("a", X, 3), "vae is 'a', expected a tfvae.VAE"),
        (lambda: evaluation.active_units("a", X), "vae is 'a', expected a tfvae.VAE"),
        (lambda: evaluation.kl_by_unit("a", X), "vae is 'a', expected a tfvae.VAE"),
        (lambda: plots.samples("a", "a.png"), "vae is 'a', expected a tfvae.VAE"),
        (lambda: plots.samples(a_vae(), "a.png", rows=0), "rows must be at least 1, received 0"),
        (lambda: plots.samples(a_vae(), "a.png", image_shape=3), "image_shape is 3, expected a list of sizes"),
        (lambda: plots.reconstructions("a", X, "a.png"), "vae is 'a', expected a tfvae.VAE"),
        (lambda: plots.latent_space("a", X, "a.png"), "vae is 'a', expected a tfvae.VAE"),
        (lambda: plots.learning_curve(3, "a.png"), "history is 3, expected Keras's history"),
        (lambda: plots.learning_curve({"elbo": [1.0]}, 3), "path is 3, expected a path"),
        (
            lambda: plots.learning_curve({"elbo": [1.0]}, "a\0.png"),
            r"path is 'a\\x00.png', which holds a zero byte: no f",
        ),
        (lambda: a_vae().save("a\0.keras"), "filepath is .* which holds a zero byte"),
        (lambda: a_vae().save_weights("a\0.weights.h5"), "filepath is .* which holds a zero byte"),
        (lambda: a_vae().load_weights("a\0.weights.h5"), "filepath is .* which holds a zero byte"),
        (lambda: export(a_vae(), ""), "directory is '', expected a path; '.' is the current folder"),
        (lambda: plots.samples(a_vae(), ""), "path is '', expected a path"),
        (lambda: callbacks.Units(X, log_dir=3), "log_dir is 3, expected a path"),
        (lambda: callbacks.Pictures(X, folder=3), "folder is 3, expected a path"),
        (lambda: Client(3, "m"), "url is 3: expected http://"),
        (lambda: Client("http://host:1", 3), "model is 3: expected the model's name"),
        (lambda: Client("http://host:1", "m", timeout="a"), "timeout is 'a', expected seconds"),
    ],
)
def test_no_other_library_tells_it(door, message):
    with pytest.raises(ValueError, match=message):
        door()


@pytest.mark.parametrize(
    ("door", "message"),
    [
        (lambda: callbacks.Units(X, log_dir="file/logs"), "^file/logs cannot be written: Not a directory"),
        (lambda: callbacks.Units(X, log_dir="file"), "^file cannot be written: File exists"),
        (
            lambda: plots.learning_curve({"elbo": [1.0]}, f"{'a' * 260}.png"),
            r"^a+\.png cannot be written: File name",
        ),
    ],
    ids=["in a file", "a file", "a long name"],
)
def test_what_cannot_be_written_is_told_by_its_name(door, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").touch()
    with pytest.raises(OSError, match=message):
        door()


LATIN = os.fsdecode("données".encode("latin-1"))


@pytest.mark.parametrize(
    "door",
    [
        lambda: export(a_vae(), LATIN),
        lambda: data.load(LATIN),
        lambda: callbacks.Units(X, log_dir=LATIN),
        lambda: runs.train(output=LATIN, data_directory="x"),
        lambda: runs.train(output="x", data_directory=LATIN),
        lambda: check_export(LATIN),
        lambda: find_model(LATIN),
    ],
    ids=["export", "load", "log_dir", "output", "data", "check", "model"],
)
def test_a_name_that_tensorflow_would_look_for_elsewhere_is_told(door, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs(LATIN)
    pathlib.Path(LATIN, "dataset_info.json").touch()
    with pytest.raises(PipelineError, match=r"is not UTF-8, as which TensorFlow reads names: set LC_ALL=C\.UTF-8"):
        door()


@pytest.mark.parametrize(
    ("door", "message"),
    [
        (lambda vae: vae.fit(X, epoch=3), "fit has no argument 'epoch', the nearest is epochs; it takes x, y, batch"),
        (lambda vae: vae.fit(X, nb_epoch=3), "fit has no argument 'nb_epoch', the nearest is epochs;"),
        (lambda vae: vae.fit(X, workers=2), "fit has no argument 'workers'; it takes x,"),
        (lambda vae: vae.fit(X, condition=X), "fit has no argument 'condition'; it takes x,"),
        (lambda vae: vae.evaluate(X, batchsize=2), "evaluate has no argument 'batchsize', the nearest is batch_size;"),
        (lambda vae: vae.evaluate(X, epochs=2), "evaluate has no argument 'epochs'"),
        (lambda vae: vae.compile(optimiser="adam"), "compile has no argument 'optimiser', the nearest is optimizer;"),
        (lambda vae: vae.compile("adam", loss="mse"), r"no argument 'loss'.* The model's objective is the loss"),
        (lambda vae: a_vae(num_sample=2), "VAE has no argument 'num_sample', the nearest is num_samples; it takes enc"),
        (lambda vae: a_vae(latent_dim=2), "VAE has no argument 'latent_dim'; it takes encoder, decoder,"),
        (lambda vae: vae.predict(X, batchsize=2), "'batchsize'"),
        (lambda vae: vae.embed(X, batchsize=2), "'batchsize'"),
        (lambda vae: vae.train_on_batch(X, batchsize=2), "'batchsize'"),
        (lambda vae: export(vae, "out", ver=2), "'ver'"),
    ],
)
def test_an_unknown_argument_is_named(door, message):
    with pytest.raises(TypeError, match=message):
        door(a_vae())


def test_the_arguments_that_keras_has_are_taken():
    vae = a_vae()
    vae.compile(run_eagerly=True)
    more = {"validation_data": X, "validation_freq": [2], "class_weight": None}
    history = vae.fit(X, epochs=3, initial_epoch=1, verbose=0, **more)
    assert history.epoch == [1, 2] and len(history.history["val_loss"]) == 1
    assert sorted(vae.evaluate(X, verbose=0, return_dict=True)) == ["elbo", "kl", "log_likelihood", "loss"]


@pytest.mark.parametrize(
    ("door", "message"),
    [
        (lambda file: preprocess.run("images", "none", "out"), "none"),
        (lambda file: preprocess.run("images", None, "out"), "input"),
        (lambda file: preprocess.run(None, "none", "out"), "unknown source None"),
        (lambda file: preprocess.run("digits", None, None), "a path is None, expected the name of a file or a folder"),
        (lambda file: preprocess.run("digits", None, file), "file"),
        (lambda file: preprocess.run("digits", None, ""), "a path is '', expected the name of a file or a folder"),
        (lambda file: embed.run("none", "digits", "out"), "none holds no SavedModel"),
        (lambda file: embed.run(file, "digits", "out"), "holds no SavedModel"),
        (lambda file: embed.run(None, "digits", "out"), "a path is None, expected the name of a file or a folder"),
    ],
)
def test_jobs_tell_what_is_no_folder(door, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    with pytest.raises(PipelineError, match=message):
        door(str(tmp_path / "file"))


def test_a_table_of_arrow_is_told_how_to_become_numbers():
    with pytest.raises(ValueError, match=r"^x is a RecordBatch, expected rows .*: pass \.to_pandas\(\) of it"):
        refuse_sparse("x", pa.record_batch({"a": [1.0]}))
