"""A model of the user's own goes where the presets go, and its code runs where the user has named it alone."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from tfvae import cli, data, model_file, runs

MODEL = '''
import dataclasses
import sys

import keras
import tfvae


@keras.saving.register_keras_serializable("mine")
class Registered(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x - 1.0


class Unregistered(keras.layers.Dense):
    """Needs no decorator for the command line."""


@dataclasses.dataclass
class Sizes:
    hidden: "int" = 16


def build(event_shape, seed, rows, condition_shape, latent_dim=3):
    assert rows > 1000 and condition_shape is None
    return tfvae.VAE(
        keras.Sequential([keras.layers.Flatten(), Registered(), Unregistered(Sizes().hidden, "tanh")]),
        tfvae.networks.mlp([16]),
        tfvae.posteriors.diagonal_normal(latent_dim),
        tfvae.likelihoods.bernoulli(event_shape),
        seed=seed,
    )


def compiled(event_shape):
    vae = build(event_shape, 0, 1001, None, 2)
    vae.compile(keras.optimizers.SGD(1e-3))
    return vae


def of_other_rows():
    return build([3], 0, 1001, None)


class Scale(keras.layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return self.factor * x


def after(first, event_shape):
    encoder = keras.Sequential([keras.layers.Flatten(), first, keras.layers.Dense(4)])
    parts = tfvae.posteriors.diagonal_normal(2), tfvae.likelihoods.bernoulli(event_shape)
    return tfvae.VAE(encoder, tfvae.networks.mlp([4]), *parts)


def forgetful(event_shape):
    return after(Scale(2.0), event_shape)


def unsafe(event_shape):
    return after(keras.layers.Lambda(lambda x: 2 * x), event_shape)


def nothing():
    pass


def hungry(event_shape, depth):
    pass


def leaves():
    sys.exit(0)


def broken():
    return 1 / 0
'''


def invoke(*arguments: object):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def train(digits: str, output: pathlib.Path, model: object, *options: object):
    return invoke("train", "--data", digits, "--output", output, "--model", model, "--epochs", 1, *options)


def forget() -> None:
    """As in a process that has never run the file."""
    keras.saving.get_custom_objects().pop("mine>Registered", None)


@pytest.fixture(scope="module")
def own(tmp_path_factory, digits) -> pathlib.Path:
    """A folder with ``mine.py`` and ``run``, trained by it in one epoch of batches of 500."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(MODEL)
    result = train(digits, folder / "run", f"{folder / 'mine.py'}:build", "--batch-size", 500)
    assert result.exit_code == 0, result.output
    return folder


def test_the_run_is_what_fit_finds_and_remembers_the_file(own, digits):
    keras.utils.set_random_seed(0)
    mine = model_file.read(own / "mine.py").module
    vae = mine.build((8, 8, 1), condition_shape=None, rows=1437, seed=0)
    vae.compile(keras.optimizers.Adam(1e-3))
    history = vae.fit(data.load(digits), batch_size=500, epochs=1, verbose=0).history
    logged = (own / "run/history.csv").read_text().splitlines()
    row = dict(zip(logged[0].split(","), map(float, logged[1].split(",")), strict=True))
    assert row["elbo"] == pytest.approx(history["elbo"][0], rel=1e-6)
    record = json.loads((own / "run/run.json").read_text())
    assert record["model"] == "model.py:build" and record["latent_dim"] == 3 and record["learning_rate"] == 1e-3
    assert record["model_file"] == {"name": "mine.py", "sha256": runs.storage.sha256(str(own / "mine.py"))}
    assert (own / "run/model.py").read_text() == MODEL


def test_no_code_of_a_run_is_run_that_the_user_has_not_named(own, digits, tmp_path):
    run = shutil.copytree(own / "run", tmp_path / "run")
    (run / "model.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\n" + MODEL)
    forget()
    for command in (
        ("evaluate", run, "--data", digits),
        ("export", run, tmp_path / "x"),
        ("plot", run, "--output", "x"),
    ):
        result = invoke(*command)
        assert result.exit_code == 1 and f"if you trust {run / 'model.py'} to be run as a program" in result.output
        assert f"--model {run / 'model.py'}" in result.output
    assert not (tmp_path / "pwned").exists()
    result = invoke("evaluate", run, "--data", digits, "--model", own / "mine.py", "--num-samples", 2)
    assert result.exit_code == 0, result.output
    (run / "model.py").unlink()
    with pytest.raises(ValueError, match=r"not of Keras or tfvae: name the file that defines it, --model FILE.py"):
        forget()
        runs.load(run)


@pytest.mark.slow
def test_the_own_model_is_exported_and_drawn(own, digits, tmp_path):
    forget()
    file = own / "run/model.py"
    result = invoke("export", own / "run", tmp_path / "exported", "--model", f"{file}:build")
    assert result.exit_code == 0, result.output
    assert invoke("check-export", tmp_path / "exported").exit_code == 0
    result = invoke("plot", own / "run", "--output", tmp_path / "plots", "--model", file)
    assert result.exit_code == 0 and (tmp_path / "plots/samples.png").exists(), result.output


def test_a_file_that_has_changed_is_not_taken_for_that_of_the_run(own, digits, tmp_path):
    changed = tmp_path / "mine.py"
    changed.write_text(MODEL.replace("2.0 * x", "3.0 * x"))
    result = invoke("evaluate", own / "run", "--data", digits, "--model", changed)
    assert result.exit_code == 1 and "is not as it was when" in result.output
    assert f"name {own / 'run/model.py'}" in result.output


@pytest.mark.parametrize(
    ("function", "options", "sentence"),
    [
        ("nothing", (), "nothing of {file} returned NoneType, expected a tfvae.VAE"),
        ("hungry", (), "hungry of {file} asks for depth, but is given what it names of event_shape (the shape of one"),
        ("leaves", (), f"{{file}}, line {MODEL.splitlines().index('    sys.exit(0)') + 1}: SystemExit: 0 (a model"),
        ("broken", (), f"{{file}}, line {len(MODEL.splitlines())}: ZeroDivisionError: division by zero"),
        ("of_other_rows", (), "returned a model of observations (3,), but those of {data} are (8, 8, 1)"),
        ("forgetful", (), "cannot load once it is saved: Scale.__init__() got an unexpected keyword argument"),
        ("unsafe", (), "cannot load once it is saved: Requested the deserialization of a `Lambda` layer"),
        (
            "missing",
            (),
            "{file} has no function missing, only build, compiled, of_other_rows, after, forgetful,",
        ),
        ("compiled", ("--learning-rate", 0.1), "--learning-rate is 0.1, but the model was compiled by its file"),
        ("compiled", ("--latent-dim", 4), "--latent-dim is 4, but compiled of {file} has no such parameter"),
    ],
)
def test_a_function_that_does_not_fit_is_told_in_a_sentence(own, digits, tmp_path, function, options, sentence):
    result = train(digits, tmp_path / "run", f"{own / 'mine.py'}:{function}", *options)
    assert result.exit_code == 1 and not (tmp_path / "run").exists()
    assert sentence.format(file=own / "mine.py", data=digits) in result.output


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "import a_package_of_nobody\n",
            "line 1: ModuleNotFoundError: No module named 'a_package_of_nobody' (a model file",
        ),
        ("def build(:\n", "mine.py: SyntaxError: "),
        ("import sys\nsys.exit(0)\n", "mine.py, line 2: SystemExit: 0 (a model file defines a function, and must not"),
        ("x = 1\n", "has no function build, nor any other"),
        (None, "There is no file "),
    ],
)
def test_a_file_that_does_not_run_is_told_in_a_sentence(digits, tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    result = train(digits, tmp_path / "run", tmp_path / "mine.py")
    assert result.exit_code == 1 and sentence in result.output, result.output


def test_a_file_of_the_users_is_not_replaced_by_the_copy(own, digits, tmp_path):
    (tmp_path / "model.py").write_text("mine")
    result = train(digits, tmp_path, own / "mine.py", "--overwrite")
    assert result.exit_code == 1 and "holds a file model.py that is of no run" in result.output
    assert (tmp_path / "model.py").read_text() == "mine"


@pytest.mark.slow
def test_a_model_that_comes_compiled_keeps_its_optimiser(own, digits, tmp_path):
    record = runs.train(digits, tmp_path / "run", f"{own / 'mine.py'}:compiled", epochs=1, batch_size=1437)
    assert record["learning_rate"] is None and record["latent_dim"] == 2
    vae = runs.load(tmp_path / "run", str(tmp_path / "run/model.py"))
    assert type(vae.optimizer).__name__ == "SGD"
    assert np.isfinite(vae.elbo(data.load(digits, "test")[:5])).all()


CONDITIONAL = """
import keras
import tfvae


def network(*shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, keras.layers.Dense(8, "tanh")(keras.layers.concatenate(inputs)))


def build(event_shape, condition_shape, latent_dim):
    networks = network(event_shape, condition_shape), network([latent_dim], condition_shape)
    normal = tfvae.likelihoods.normal(event_shape)
    posterior = tfvae.posteriors.diagonal_normal(latent_dim)
    return tfvae.VAE(*networks, posterior, normal, condition_shape=condition_shape, seed=0)
"""


@pytest.mark.slow
def test_a_model_of_rows_with_a_condition_is_trained_measured_and_drawn(tmp_path):
    import tensorflow_datasets as tfds

    random = np.random.default_rng(0)
    condition = random.standard_normal([300, 2]).astype("float32")
    x = (condition @ random.standard_normal([2, 5]) + 0.1 * random.standard_normal([300, 5])).astype("float32")
    rows = {"key": [f"{i}".encode() for i in range(300)], "x": x, "condition": condition}
    splits = {"train": slice(0, 250), "test": slice(250, 300)}
    shape = {"key": tfds.features.Text(), "x": (5,), "condition": (2,)}
    features = {
        name: one if name == "key" else tfds.features.Tensor(shape=one, dtype=np.float32) for name, one in shape.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="rows",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={
            name: tf.data.Dataset.from_tensor_slices({k: v[part] for k, v in rows.items()})
            for name, part in splits.items()
        },
        data_dir=str(tmp_path),
    )
    (tmp_path / "mine.py").write_text(CONDITIONAL)
    prepared, run = str(tmp_path / "rows/1.0.0"), tmp_path / "run"
    runs.train(prepared, run, str(tmp_path / "mine.py"), epochs=20, batch_size=50, latent_dim=2, learning_rate=0.01)
    result = runs.evaluate(run, prepared, num_samples=50)
    scored = {"x": x[250:], "condition": condition[250:]}
    vae = runs.load(run)  # made of Keras's and the package's parts: no file is needed
    assert result["elbo"] == pytest.approx(np.mean(vae.elbo(scored, num_samples=200)), abs=0.5)
    shuffled = {"x": x[250:], "condition": condition[250:][::-1]}
    assert result["elbo"] > np.mean(vae.elbo(shuffled, num_samples=200)) + 2  # it has learned what the condition says
    assert result["rows"] == 50 and result["elbo"] <= result["log_marginal"]
    assert {pathlib.Path(path).name for path in runs.plot(run, tmp_path / "plots")} >= {"residuals.png"}
