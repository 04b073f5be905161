"""``tfvae verify`` names every file that is not as it was written, whatever the folder holds, and changes nothing."""

import json
import shutil

import pytest
from click.testing import CliRunner

import tfvae
from pipelines import embed
from pipelines.errors import PipelineError
from pipelines.verify import verify
from tests.exporting.test_saved_model import image_model
from tests.pipelines.conftest import artifacts
from tests.pipelines.test_damage import PLACES, flip
from tfvae import cli
from tfvae.pipelines import checksums

RECORDS = ("manifest.json", "checksums.json", "job.json", "command.json")  # which nothing lists


@pytest.fixture(scope="module")
def folders(prepared_digits, linear_digits, tmp_path_factory):
    """One folder of each kind; the run's files are no model, which nothing reads here."""
    base = tmp_path_factory.mktemp("verified")
    shutil.copytree(prepared_digits, base / "prepared")
    embed.run(linear_digits.path, prepared_digits, str(base / "embeddings"))
    tfvae.export(image_model("mlp"), base / "export", warmup_batch_sizes=[1])
    (base / "run" / "logs").mkdir(parents=True)
    for name in ("model.keras", "history.csv", "run.json", "logs/events"):
        (base / "run" / name).write_bytes(name.encode())
    checksums.list_files(str(base / "run"), "checksums.json")
    (base / "run" / "evaluation.json").write_bytes(b"{}")
    checksums.relist(str(base / "run"), "checksums.json", "evaluation.json")
    return base


@pytest.mark.parametrize("kind", ["prepared", "embeddings", "export", "run"])
def test_every_file_is_named(kind, folders, tmp_path):
    folder, whole = tmp_path / kind, artifacts(folders / kind)
    shutil.copytree(folders / kind, folder, symlinks=True)
    sound = verify(str(folder))
    assert (sound.kind, sound.damaged, sound.exit_code) == (kind, (), 0) and "damaged          none" in sound.table()
    prefix = "1/" if kind == "export" else ""
    assert sound.files == len(whole) and sound.bytes == sum(map(len, whole.values()))
    for name, content in whole.items():
        shown = name.removeprefix(prefix)
        for share in PLACES.values():
            if content:
                flip(folder / name, share)
                found = verify(str(folder))
                assert (found.damaged, found.exit_code) == ((shown,), 1), (name, share)
                assert f"damaged          {shown}\n" in found.table() and "to mend it" in found.table()
                (folder / name).write_bytes(content)
        if name.rsplit("/")[-1] not in RECORDS and "commits" not in name:
            (folder / name).unlink()
            assert verify(str(folder)).damaged == (shown,)
            (folder / name).write_bytes(content)
    assert artifacts(folder) == whole and not verify(str(folder)).damaged


@pytest.mark.parametrize("kind", ["prepared", "embeddings"])
def test_a_file_that_whoever_opens_the_folder_reads_too_is_told(kind, folders, tmp_path):
    shutil.copytree(folders / kind, tmp_path / kind)
    (own,) = [*(tmp_path / kind).glob("parts/*test*.parquet"), *(tmp_path / kind).glob("*test.tfrecord-*")][:1]
    stray = own.with_name(f"old {own.name}")
    shutil.copy(own, stray)
    for harmless in (".hidden.parquet", "_notes.parquet", "notes.txt"):
        own.with_name(harmless).write_bytes(b"")
    found, name = verify(str(tmp_path / kind)), str(stray.relative_to(tmp_path / kind))
    assert (found.damaged, found.strange, found.exit_code) == ((), (name,), 1)
    assert f"not of it        {name}: move it away" in found.table()
    stray.unlink()
    assert verify(str(tmp_path / kind)).exit_code == 0


def test_the_command_and_its_exit_codes(folders, tmp_path):
    shutil.copytree(folders / "run", tmp_path / "run")
    sound = CliRunner().invoke(cli.main, ["verify", str(tmp_path / "run")])
    assert sound.exit_code == 0 and "holds            run" in sound.output
    flip(tmp_path / "run" / "model.keras", 0.5)
    damaged = CliRunner().invoke(cli.main, ["verify", str(tmp_path / "run")])
    assert damaged.exit_code == 1 and "damaged          model.keras" in damaged.output
    absent = CliRunner().invoke(cli.main, ["verify", str(tmp_path / "absent")])
    assert (
        absent.exit_code == 1
        and "absent is not there: expected a prepared dataset, embeddings, an export or a r" in absent.output
    )
    empty = CliRunner().invoke(cli.main, ["verify", str(tmp_path)])
    assert empty.exit_code == 1 and "holds no prepared dataset, embeddings, export or run" in empty.output


def test_what_has_no_checksums_is_told(folders, linear_digits, tmp_path):
    with pytest.raises(PipelineError, match="has no checksums, an earlier release or another program wrote it: export"):
        verify(linear_digits.path)
    shutil.copytree(folders / "prepared", tmp_path / "prepared")
    (tmp_path / "prepared" / "manifest.json").unlink()
    with pytest.raises(PipelineError, match="is not complete"):
        verify(str(tmp_path / "prepared"))
    shutil.copytree(folders / "embeddings", tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    del manifest["checksum"]
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(manifest | {"format_version": 1}))
    found = verify(str(tmp_path / "old"))
    assert not found.damaged and "not verified     the list itself" in found.table()


def test_a_record_of_a_stranger_leads_nowhere(folders, tmp_path):
    """A path that leaves the folder is never opened, and a list that is none is damage."""
    (tmp_path / "secret").write_bytes(b"secret")
    entry = checksums.describe(str(tmp_path), "secret")
    for path in ("../secret", str(tmp_path / "secret")):
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        (run / "checksums.json").write_bytes(checksums.record_bytes({"files": [entry | {"path": path}]}))
        assert verify(str(run)).damaged == (path,)
    for files in (None, 3, [3], [{"path": "x"}], [entry | {"bytes": "6"}]):
        (run / "checksums.json").write_text(json.dumps({"files": files}))
        assert verify(str(run)).damaged == ("checksums.json",)


def test_a_damaged_export_is_not_run(folders, prepared_digits, linear_digits, tmp_path):
    """What the job reads stops it; the card is for people, who may edit it, and ``check-export`` tells of it."""
    shutil.copytree(linear_digits.path, tmp_path / "model" / "1")
    folder = tmp_path / "model" / "1"
    checksums.list_files(str(folder), "assets.extra/checksums.json")
    embed.run(str(folder), prepared_digits, str(tmp_path / "out"))
    flip(folder / "fingerprint.pb", 0.5)
    with pytest.raises(PipelineError, match=r"fingerprint.pb is missing or damaged: export the model again"):
        embed.run(str(folder), prepared_digits, str(tmp_path / "out"))
    from tfvae.checks import check

    shutil.copytree(folders / "export" / "1", tmp_path / "2")
    assert check.layout(tmp_path / "2", ()) == []
    flip(tmp_path / "2" / "assets.extra" / "model_card.md", 0.5)
    assert check.layout(tmp_path / "2", ()) == ["assets.extra/model_card.md is missing or damaged"]
