"""What Keras gives every model, asked with the wrong thing of each kind, and files of weights that are another's."""

import contextlib
import functools
import io
import pathlib
import traceback
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfvae
from tests.test_every_argument import JUNK
from tfvae import VAE, likelihoods, networks, posteriors, priors

X = (np.random.default_rng(0).random([5, 4]) < 0.5).astype(np.float32)
OURS = str(pathlib.Path(tfvae.__file__).parent)


def vae(hidden=(3,), optimizer="sgd") -> VAE:
    parts = networks.mlp(hidden), networks.mlp([3]), posteriors.diagonal_normal(2), likelihoods.bernoulli([4])
    model = VAE(*parts, seed=0)
    model.compile(optimizer, run_eagerly=True)
    return model


@pytest.fixture(scope="module")
def model() -> VAE:
    return vae()


# Files of weights


def folder_of_weights(folder: pathlib.Path) -> None:
    vae().save_weights(folder / "same.weights.h5")
    vae().save_weights(folder / "sharded.weights.json", max_shard_size=2e-7)
    vae([3, 3]).save_weights(folder / "deeper.weights.h5")  # all that this model has is there, and fits
    vae([7]).save_weights(folder / "wider.weights.h5")
    vae([7]).save(folder / "wider.keras")
    vae([7]).save_weights(folder / "wider_sharded.weights.json", max_shard_size=2e-7)
    plain = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
    plain.save_weights(folder / "plain.weights.h5")
    plain.save(folder / "plain.keras")
    whole = (folder / "same.weights.h5").read_bytes()
    (folder / "cut.weights.h5").write_bytes(whole[: len(whole) // 2])
    (folder / "text.weights.h5").write_text("hello")
    (folder / "text.keras").write_text("hello")
    (folder / "list.weights.json").write_text("[1]")
    (folder / "elsewhere.weights.json").write_text('{"weight_map": {"a": ["../same.weights.h5"]}}')
    (folder / "folder.weights.h5").mkdir()
    with zipfile.ZipFile(folder / "empty.keras", "w"):
        pass


WRONG_FILES = {
    "deeper.weights.h5": (ValueError, "holds weights of another model: encoder/layers/dense_1/vars/0 is of shape"),
    "wider.weights.h5": (
        ValueError,
        r"is of shape \(4, 7\) there and of shape \(4, 3\) in this one. Make the model as",
    ),
    "wider.keras": (ValueError, "holds weights of another model: encoder/"),
    "wider_sharded.weights.json": (ValueError, "holds weights of another model: encoder/"),
    "plain.weights.h5": (ValueError, r"holds weights of another model: .* is none there and of shape"),
    "plain.keras": (ValueError, "holds weights of another model"),
    "cut.weights.h5": (OSError, "cut.weights.h5 cannot be read: it is damaged, or of another format"),
    "text.weights.h5": (OSError, "cannot be read: it is damaged"),
    "text.keras": (OSError, "cannot be read: it is damaged"),
    "list.weights.json": (ValueError, "lists no files of weights"),
    "elsewhere.weights.json": (ValueError, "lists no files of weights"),
    "empty.keras": (ValueError, "holds no model.weights.h5"),
    "folder.weights.h5": (IsADirectoryError, "cannot be read: Is a directory"),
    "missing.weights.h5": (FileNotFoundError, "missing.weights.h5 cannot be read: No such file"),
    "missing": (ValueError, "expected a file that ends in .weights.h5, .weights.json or .keras"),
}


def test_weights_are_this_model_s_or_not_loaded(tmp_path):
    folder_of_weights(tmp_path)
    model = vae()
    before = model.get_weights()
    for name, (kind, message) in WRONG_FILES.items():
        with pytest.raises(kind, match=message) as told:
            model.load_weights(tmp_path / name)
        assert "\n" not in str(told.value) and name in str(told.value)
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(new, old, err_msg=name)
    for name in ("same.weights.h5", "sharded.weights.json"):
        model = vae()
        model.load_weights(tmp_path / name)
        assert any(np.any(old != new) for old, new in zip(before, model.get_weights(), strict=True))


def test_what_fits_of_other_weights_is_loaded_where_it_is_asked_for(tmp_path):
    wider, model = vae([7]), vae()
    wider.save_weights(tmp_path / "wider.weights.h5")
    with pytest.warns(UserWarning, match="could not be loaded"):
        model.load_weights(tmp_path / "wider.weights.h5", skip_mismatch=True)
    for mine, other in ((model.decoder, wider.decoder), (model.likelihood, wider.likelihood)):
        np.testing.assert_array_equal(mine.weights[0].numpy(), other.weights[0].numpy())


def test_the_optimiser_of_a_file_need_not_be_this_one(tmp_path):
    trained, model = vae(optimizer=keras.optimizers.SGD(0.1, momentum=0.9)), vae()
    trained.train_on_batch(X)
    trained.save_weights(tmp_path / "m.weights.h5")
    model.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(model.embed(X), trained.embed(X))


def test_keras_writes_no_h5_file_of_a_model(tmp_path):
    for save in (vae().save, functools.partial(keras.saving.save_model, vae())):
        with pytest.raises(ValueError, match="an h5 file, which Keras could not load this model from"):
            save(tmp_path / "m.h5")
    keras.Sequential([keras.Input([2]), keras.layers.Dense(1)]).save(tmp_path / "plain.h5")


@pytest.mark.parametrize("method", ["save", "save_weights"])
def test_a_file_is_there_when_it_is_whole(method, tmp_path, monkeypatch):
    model, name = vae(), {"save": "m.keras", "save_weights": "m.weights.h5"}[method]
    save, path = getattr(model, method), tmp_path / name
    save(path)
    whole, link = path.read_bytes(), tmp_path / f"link.{name[2:]}"
    link.symlink_to(path)
    with pytest.raises(FileExistsError, match="is there already, and overwrite is False"):
        save(path, overwrite=False)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(model), "save_own_variables", stopped)
        with pytest.raises(KeyboardInterrupt):
            save(path)
    assert path.read_bytes() == whole and set(tmp_path.iterdir()) == {path, link}
    save(link)
    assert link.is_symlink() and set(tmp_path.iterdir()) == {path, link}
    for wrong, kind in ((tmp_path / "none" / name, FileNotFoundError), (path / name, NotADirectoryError)):
        with pytest.raises(kind, match="cannot be written: ") as told:
            save(wrong)
        assert str(wrong) in str(told.value)


# Arguments


METHODS = {
    "compile": ("optimizer", "steps_per_execution", "jit_compile", "run_eagerly"),
    "fit": (
        *("batch_size", "epochs", "verbose", "callbacks", "validation_split", "shuffle", "sample_weight"),
        *("steps_per_epoch", "validation_steps", "validation_batch_size", "initial_epoch", "validation_freq"),
    ),
    "evaluate": ("batch_size", "verbose", "sample_weight", "steps", "callbacks", "return_dict"),
    "predict": ("batch_size", "verbose", "steps", "callbacks"),
    "train_on_batch": ("sample_weight", "return_dict", "class_weight", "y"),
    "test_on_batch": ("sample_weight", "return_dict", "y"),
    "predict_on_batch": ("x",),
    "__call__": ("x",),
    "save": ("filepath", "overwrite", "zipped"),
    "save_weights": ("filepath", "overwrite", "max_shard_size"),
    "load_weights": ("filepath", "skip_mismatch"),
    "export": ("filepath",),
    "summary": ("line_length", "positions", "print_fn", "expand_nested", "show_trainable", "layer_range"),
    "get_layer": ("name", "index"),
    "to_json": ("indent",),
    "from_config": ("config",),
    "quantize": ("mode", "config"),
    "add_loss": ("loss",),
    "add_metric": ("metric",),
    "set_weights": ("weights",),
    "set_state_tree": ("state_tree",),
    "compute_output_shape": ("input_shape",),
    "compute_loss": ("y",),
    "with_prior": ("prior",),
}
REST = {
    "fit": {"x": X, "verbose": 0, "validation_data": X},
    "evaluate": {"x": X, "verbose": 0},
    "predict": {"x": X, "verbose": 0},
    "train_on_batch": {"x": X},
    "test_on_batch": {"x": X},
    "save": {"filepath": "m.keras"},
    "save_weights": {"filepath": "m.weights.h5"},
    "load_weights": {"filepath": "m.weights.h5"},
}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "argument"), [(name, one) for name in METHODS for one in METHODS[name]])
def test_every_method_of_keras_tells_the_wrong_thing_in_a_sentence_of_ours(method, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, refused = vae(), 0
    model.save_weights("m.weights.h5")
    for kind, wrong in JUNK.items():
        given = {**REST.get(method, {}), argument: wrong}
        if (method, argument) == ("save_weights", "max_shard_size"):
            given["filepath"] = "m.weights.json"
        before = model.get_weights()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                getattr(model, method)(*[given.pop("x")] if "x" in given else (), **given)
        except (ValueError, TypeError, OSError) as error:
            raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
            assert raised_in.startswith(OURS), f"{argument} = {kind}: {type(error).__name__}: {error} from {raised_in}"
            foreign = ("'NoneType'", "object is not", "positional", "ambiguous", "unexpected keyword", "dictionary upd")
            assert not any(word in str(error) for word in foreign), error
            refused += 1
            if method not in ("fit", "train_on_batch"):
                assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    assert refused >= 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.add_loss(tf.constant(1.0)), "^add_loss would change nothing that is trained: a penalty"),
        (lambda model: model.quantize("int8"), r"a network of it may be: vae.encoder.quantize\('int8'\), and then"),
        (lambda model: model.quantize("int9"), "^A model with distributions is not quantized as a whole"),
        (lambda model: model.compute_loss(X, X, X), "^There is no loss of predictions: the objective is the loss"),
        (lambda model: model.train_step(X), "^There is no loss of predictions"),
        (
            lambda model: setattr(model, "prior", priors.Mixture(2)),
            "^prior is a part of a model that is made, and stay",
        ),
        (lambda model: setattr(model, "num_samples", 5), "^num_samples is a part of a model that is made"),
        (lambda model: setattr(model, "encoder", networks.mlp([3])), "^encoder is a part of a model that is made"),
        (lambda model: model.with_prior([]), "^The prior is a .*List, expected one of priors"),
        (lambda model: model.set_weights(model.get_weights()[:-1]), "^weights is a list of 7, expected 8 arrays, as"),
        (
            lambda model: model.set_weights([*model.get_weights()[:-1], [1.0]]),
            r"weights\[7\] has shape \(1,\), expecte",
        ),
        (lambda model: model.get_layer("encodr"), "^name is 'encodr', expected one of .*posterior, likelihood, prior"),
        (lambda model: model.summary(layer_range=["a", "b"]), r"^layer_range is \['a', 'b'\], expected two names of"),
        (lambda model: VAE.from_config({"encoder": 1}), "^config has no decoder, posterior, likelihood, expected a"),
        (lambda model: model.fit(X, validation_freq=["a"]), r"^validation_freq\[0\] must be a whole number of 1 or mo"),
        (lambda model: model.fit(X, verbose="loud"), "^verbose is 'loud', expected 'auto', 0, 1 for a bar, or 2"),
        (lambda model: model.fit(X, shuffle="batch"), "^shuffle is 'batch', expected True or False"),
        (lambda model: model.compile("sdg"), "^optimizer is 'sdg', expected one of keras.optimizers, or the name"),
        (lambda model: model.predict(X, callbacks=3), "^callbacks holds 3, expected callbacks"),
        (lambda model: VAE.from_config(model.get_config()).fit(X), r"^fit needs an optimiser: call compile\(\) first"),
        (lambda model: VAE.from_config(model.get_config()).evaluate(X), "^evaluate needs an optimiser"),
        (lambda model: model.save("m.keras", foo=1), "^save has no argument 'foo'; it takes filepath, overwrite"),
        (lambda model: model.load_weights("m.weights.h5", by_name=True), "^load_weights has no argument 'by_name'"),
        (lambda model: model.predict(X, batchsize=2), "^predict has no argument 'batchsize', the nearest is batch_siz"),
        (lambda model: model.train_on_batch(X, reset_metrics=True), "^train_on_batch has no argument 'reset_metrics'"),
    ],
)
def test_the_sentence_names_what_came_and_what_to_write(call, message, model):
    with pytest.raises((TypeError, ValueError), match=message) as told:
        call(model)
    assert "\n" not in str(told.value)


def test_lists_are_rows_wherever_arrays_are(model):
    for door in (model, model.predict_on_batch, model.reconstruct):
        np.testing.assert_allclose(door(X.tolist()), model.reconstruct(X), atol=1e-6)
    with pytest.raises(ValueError, match="x has dtype string"):
        model([["a", "b", "c", "d"]])


def test_a_network_that_is_quantized_is_what_compile_begins_with(tmp_path):
    model = vae()
    before = model.embed(X)
    model.encoder.quantize("int8")
    model.compile("sgd", run_eagerly=True)
    after = model.embed(X)
    assert 0 < np.abs(after - before).max() < 0.1
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras").embed(X), after)


def test_a_model_is_a_layer_of_known_shape(model):
    assert model.compute_output_shape((None, 4)) == (None, 4)
    assert model.compute_output_shape({"x": (3, 4)}) == (3, 4)
    outer = keras.Sequential([keras.Input([4]), model])
    np.testing.assert_allclose(outer(X), model.reconstruct(X), atol=1e-6)
