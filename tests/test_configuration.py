"""Flags from a file: what a run wrote repeats it, the command line wins, and nothing is taken for what it is not."""

import json
import tomllib

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tfvae import cli, configuration, runs

OWN = """
import tfvae

def build(event_shape, seed, latent_dim=2):
    part = tfvae.networks.mlp([8])
    bernoulli = tfvae.likelihoods.bernoulli(event_shape)
    return tfvae.VAE(part, tfvae.networks.mlp([8]), tfvae.posteriors.diagonal_normal(latent_dim), bernoulli, seed=seed)
"""


def train(*arguments: object):
    return CliRunner().invoke(cli.main, ["train", *map(str, arguments)])


@pytest.fixture
def asked(monkeypatch) -> list[dict]:
    """What ``tfvae train`` asks of the library, which does not train."""
    found: list[dict] = []
    monkeypatch.setattr(runs, "train", lambda **options: found.append(options) or {"rows_per_second": 1})
    return found


@pytest.mark.slow
def test_the_configuration_of_a_run_repeats_it_and_the_command_line_wins(tmp_path, digits):
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "run.toml").write_text(
        f'data = "{digits}"\noutput = "runs/first"\nmodel = "mine.py"\nepochs = 9\nbatch-size = 500\nseed = 3\n'
    )
    assert train("--config", tmp_path / "run.toml", "--epochs", 1).exit_code == 0
    first, second = tmp_path / "runs/first", tmp_path / "second"
    (tmp_path / "mine.py").write_text("raise SystemExit('the run has its own')")
    written = tomllib.loads((first / "config.toml").read_text())
    assert written == {"data": digits, "output": ".", "model": "model.py:build", "epochs": 1, "batch-size": 500,
                       "learning-rate": 0.001, "seed": 3}  # fmt: skip
    assert "holds a run already" in train("--config", first / "config.toml").output
    assert train("--config", first / "config.toml", "--output", second).exit_code == 0
    assert (second / "history.csv").read_text() == (first / "history.csv").read_text()
    one, other = (json.loads((run / "run.json").read_text()) for run in (first, second))
    timed = (
        "seconds",
        "finished",
        "rows_per_second",
        "model_sha256",
        "model_file",
    )  # a copy has another name, a .keras its time
    assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


def test_paths_are_relative_to_the_file(tmp_path, asked, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    here = tmp_path / "here"
    for folder in (here, tmp_path / "data", tmp_path / "home/data"):
        folder.mkdir(parents=True)
    (here / "run.toml").write_text(
        'data = "../data"\noutput = "/runs/x"\nmodel = "own/model.py:make"\noverwrite = true'
    )
    assert train("--config", here / "run.toml", "--latent-dim", 7).exit_code == 0
    [options] = asked
    assert options["data_directory"] == str(tmp_path / "data") and options["output"] == "/runs/x"
    assert options["model"] == str(here / "own/model.py:make")
    for data, there in (("~/data", str(tmp_path / "home/data")), ("gs://bucket/data", "gs://bucket/data")):
        (here / "run.toml").write_text(f'data = "{data}"\noutput = "o"')
        train("--config", here / "run.toml")
        assert asked[-1]["data_directory"] == there
    assert options["overwrite"] is True and options["latent_dim"] == 7 and options["epochs"] is None


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("epoch = 3", "has the key 'epoch', which is no flag of train: did you mean epochs?"),
        ("batch_size = 3", "did you mean batch-size?"),
        (
            "zzz = 3",
            "there are data, output, model, experiment, epochs, batch-size, latent-dim, learning-rate, patience, seed",
        ),
        ("config = 'x.toml'", "has the key 'config', which is no flag of train"),
        ("[train]\nepochs = 3", "has the key 'train', which is no flag"),
        ("epochs = '3'", "epochs is '3', expected a whole number, such as 20."),
        ("epochs = 1.5", "epochs is 1.5, expected a whole number, such as 20."),
        ("batch-size = 1e9", "batch-size is 1000000000.0, expected a whole number, such as 1000000000."),
        ("epochs = true", "epochs is True, expected a whole number"),
        ("epochs = 0", "0 is not in the range x>=1"),
        ("learning-rate = 'fast'", "learning-rate is 'fast', expected a number, such as 0.001."),
        ("overwrite = 1", "overwrite is 1, expected true or false."),
        ("data = 3", "data is 3, expected text, in quotes"),
        ("model = ['mlp']", "model is ['mlp'], expected text"),
        ("seed = {a = 1}", "seed is a table, expected a whole number"),
        ("model = 'mlp'\nexperiment = 'mlp'", "has --model and --experiment, which are one flag"),
        ("epochs = 3\nepochs = 4", "is no TOML: "),
        ("\x00", "is no TOML: "),
        ("a = " + "[" * 100_000, "is no TOML: "),
        ("# " + "x" * (1 << 20), "is no TOML: it has more than 1048576 bytes"),
    ],
)
def test_what_is_no_flag_is_told_in_a_sentence(tmp_path, asked, line, sentence):
    (tmp_path / "run.toml").write_text(line)
    result = train("--config", tmp_path / "run.toml", "--data", "d", "--output", "o")
    assert result.exit_code == 2 and not asked
    assert sentence.rstrip(".") in result.output and "Traceback" not in result.output, result.output


def test_a_file_that_is_not_there_or_holds_other_bytes_is_told(tmp_path, asked):
    assert "There is no file" in train("--config", tmp_path / "none.toml").output
    assert "is a folder, expected a TOML file, such as" in train("--config", tmp_path).output
    (tmp_path / "run.toml").write_bytes(b"\xff\xfe")
    assert "is no TOML: " in train("--config", tmp_path / "run.toml").output


def test_a_byte_order_mark_is_passed_over(tmp_path, asked):
    """Editors on Windows write one."""
    (tmp_path / "d").mkdir()
    (tmp_path / "run.toml").write_text('data = "d"\noutput = "o"\nepochs = 4\n', "utf-8-sig")
    assert train("--config", tmp_path / "run.toml").exit_code == 0
    assert [options["epochs"] for options in asked] == [4]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["data", "epochs", "learning-rate", "overwrite"]),
        st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
    )
)  # fmt: skip
def test_what_is_written_is_what_tomllib_reads(flags):
    told = {name: value for name, value in flags.items() if value is not None}
    assert tomllib.loads(configuration.text(flags, "about")) == told
