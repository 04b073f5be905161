"""The carried programs are TensorFlow's own: where its import fails, JAX's CPU client gives the same numbers."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfvae
from benchmarks import report
from benchmarks.gpu import carried, carry

pytestmark = pytest.mark.xla

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = {"batch_size": 8, "steps": 3, "hidden": 16, "filters": (4, 8), "latent": 3}
ROWS = np.random.default_rng(0).integers(0, 256, [60, 784], np.uint8)
NOISE = np.random.default_rng(1).normal(size=[60, 3]).astype(np.float32)
MODELS = ("mlp", "conv")
ELSEWHERE = """
import pathlib, sys
sys.modules["tensorflow"] = sys.modules["keras"] = sys.modules["tfvae"] = None
import numpy as np
from benchmarks import report
from benchmarks.gpu import __main__ as gpu, carried, jax_vae, program, sides
folder, results, noise = map(pathlib.Path, sys.argv[1:])
report.RESULTS = results
gpu.main(["run", str(folder), "--rounds", "2", "--epochs", "1"])
noise, found = np.load(noise), {}
for case in carried.read(folder)[1]:
    train, data = program.Executable(case.train, "float32"), case.train.inputs[0]
    state = [program.on_device(value) for value in case.train.inputs]
    state[3] = program.on_device(np.int32(case.steps))
    for _ in range(2):
        _, state = train(state)
    found |= {f"{case.model}_{i}": state[parameter] for i, parameter in enumerate(case.weights)}
    for i in case.weights:
        case.train.inputs[i] = np.random.default_rng(i).normal(0, 0.2, state[i].shape).astype(np.float32)
    found[f"{case.model}_jax"] = jax_vae.negative_elbo(jax_vae.pairs(case), data, noise)
    if sides.missing("eager", "cpu") is None:
        import torch
        from benchmarks.gpu import torch_vae
        images = torch.from_numpy(torch_vae.images(data.reshape(len(data), 784), case))
        found[f"{case.model}_torch"] = torch_vae.VAE(case)(images, torch.from_numpy(noise)).detach().numpy()
np.savez(results / "found.npz", **{name: np.asarray(value) for name, value in found.items()})
"""


def small(model: str) -> tfvae.VAE:
    return carry.vae(model, SMALL["hidden"], list(SMALL["filters"]), SMALL["latent"])


@pytest.fixture(scope="module")
def cases() -> list[carried.Case]:
    return [carry.case(model, ROWS, **SMALL) for model in MODELS]


@pytest.fixture(scope="module")
def folder(cases, tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("carried")
    carried.write(path, ROWS, cases, report.machine())
    return path


@pytest.fixture(scope="module")
def elsewhere(folder, tmp_path_factory) -> pathlib.Path:
    """The results of a process that cannot import TensorFlow."""
    results = tmp_path_factory.mktemp("results")
    np.save(results / "noise.npy", NOISE)
    command = [sys.executable, "-c", ELSEWHERE, str(folder), str(results), str(results / "noise.npy")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return results


@pytest.mark.slow
def test_the_folder_gives_back_what_was_written(cases, folder):
    rows, read, machine = carried.read(folder)
    np.testing.assert_array_equal(rows, ROWS)
    assert machine == report.machine()
    for came, case in zip(read, cases, strict=True):
        for work in ("train", "embed"):
            found, program = getattr(came, work), getattr(case, work)
            assert (found.hlo, found.returned, found.updated) == (program.hlo, program.returned, program.updated)
            for value, other in zip(found.inputs + found.outputs, program.inputs + program.outputs, strict=True):
                assert value.dtype == other.dtype
                np.testing.assert_array_equal(value, other)


@pytest.mark.slow
def test_without_tensorflow_the_results_are_tensorflow_s(elsewhere):
    found = json.loads((elsewhere / "gpu.json").read_text(encoding="utf-8"))
    assert [case["model"] for case in found["cases"]] == list(MODELS)
    for case in found["cases"]:
        assert case["train"]["program"]["difference"] < 1e-5
        assert case["embed"]["program"]["difference"] < 1e-5
        assert case["embed"]["jax"]["difference"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_chained_calls_are_two_epochs_of_fit(model, cases, elsewhere):
    case = cases[MODELS.index(model)]
    vae = small(model)
    vae.compile(keras.optimizers.Adam(carry.LEARNING_RATE), steps_per_execution=case.steps, jit_compile=True)
    data, rows = case.train.inputs[:2]
    vae.fit(data[rows.ravel()], batch_size=case.batch_size, epochs=2, shuffle=False, verbose=0)
    with np.load(elsewhere / "found.npz") as found:
        for i, weight in enumerate((*vae.recognition_weights, *vae.generative_weights)):
            came, expected, before = found[f"{model}_{i}"], weight.numpy(), case.initial_weights[i]
            assert np.max(np.abs(expected - before)) > 5e-4  # the six steps of Adam are in it
            np.testing.assert_allclose(came, expected, rtol=1e-5, atol=1e-5 * np.max(np.abs(expected)))


@pytest.mark.slow
@pytest.mark.parametrize("side", ["jax", "torch"])
@pytest.mark.parametrize("model", MODELS)
def test_the_peers_are_the_same_model(model, side, cases, elsewhere):
    """The negative ELBO at drawn weights and given noise."""
    with np.load(elsewhere / "found.npz") as arrays:
        found = dict(arrays)
    if f"{model}_{side}" not in found:
        pytest.skip(f"{side} is not installed")
    vae, case = small(model), cases[MODELS.index(model)]
    weights = [*vae.recognition_weights, *vae.generative_weights]
    for i, weight in zip(case.weights, weights, strict=True):
        weight.assign(np.random.default_rng(i).normal(0, 0.2, weight.shape))
    x = case.train.inputs[0]
    q = vae.encode(x)
    terms = vae.terms_at(x, q, (q.mean() + q.stddev() * NOISE)[None])
    np.testing.assert_allclose(found[f"{model}_{side}"], -np.mean(terms.log_likelihood[0] - terms.kl), rtol=1e-5)


@pytest.mark.slow
def test_the_table_names_every_side_with_its_rate_loss_and_precision(elsewhere):
    found = json.loads((elsewhere / "gpu.json").read_text(encoding="utf-8"))
    lines = (elsewhere / "gpu.md").read_text(encoding="utf-8").splitlines()
    assert sum("| float32 | `tfvae.VAE`'s program |" in line for line in lines) == 2 * len(MODELS)
    assert sum("| float32 | JAX, scan over K steps |" in line for line in lines) == 2 * len(MODELS)
    assert found["skipped"]["graphs"]
    assert any("left out: no CUDA graphs" in line or "left out: PyTorch is not installed" in line for line in lines)
    for case in found["cases"]:
        for side in case["train"].values():
            assert len(side["rows_per_second"]) == 2
            assert len(side["losses"]) == 3
        losses = [side["losses"][0] for side in case["train"].values()]
        np.testing.assert_allclose(losses, losses[0], rtol=0.01)  # the same model and data, other noise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("mlp-8-train.hlo", lambda content: content[:100] + b"?" + content[101:], "expected .* it is damaged"),
        ("conv-8-embed.npz", None, "has SHA-256 no file"),
        ("rows.npz", lambda content: content[:-1], "it is damaged"),
        ("manifest.json", None, "no readable manifest.json"),
        ("manifest.json", lambda content: content[:-10], "no readable manifest.json"),
        ("manifest.json", lambda content: content.replace(b'"format": 1', b'"format": 2'), "format 2, expected 1"),
    ],
)
def test_what_was_damaged_on_the_way_is_refused(name, damage, message, folder, tmp_path):
    for path in folder.iterdir():
        if path.name != name:
            (tmp_path / path.name).symlink_to(path)
        elif damage is not None:
            (tmp_path / name).write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        carried.read(tmp_path)
    assert "carry it again" in str(error.value)


def test_a_difference_is_measured_in_parts_of_the_largest_value():
    expected = np.array([1e-6, -4.0], np.float32)
    assert carried.difference(expected.copy(), expected) == 0.0
    assert carried.difference(np.array([0.5, -4.0], np.float32), expected) == pytest.approx(0.125, rel=1e-5)
    with pytest.raises(ValueError, match="float64"):
        carried.difference(expected.astype(np.float64), expected)


def test_too_few_rows_for_a_call_are_named():
    with pytest.raises(ValueError, match="3 steps of 8 rows need 24, received 20"):
        carry.case("mlp", ROWS[:20], **SMALL)


def test_an_absent_package_has_no_version():
    assert report.versions("numpy", "no-such-package") == {"numpy": np.__version__}


@pytest.mark.slow
def test_a_case_knows_its_parts(cases):
    for case in cases:
        assert case.calls(len(ROWS)) == 2
        assert case.train.returned == ["elbo", "kl", "log_likelihood", "loss"]
        assert case.epsilon == 1e-7
        for value in (case.train.inputs[i] for i in case.metrics):
            assert value == 0.0
