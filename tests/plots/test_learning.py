"""The film of the documentation is small, and the command that makes it does."""

import pathlib
import runpy

import numpy as np
import PIL.Image
import pytest

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


def test_the_film_is_small_and_moves():
    assert (DOCS / "learning.gif").stat().st_size < 1_000_000
    with PIL.Image.open(DOCS / "learning.gif") as film:
        assert film.n_frames > 30
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "(docs/learning.gif)" in readme and "python docs/learning.py docs/learning.gif" in readme


@pytest.mark.slow
def test_the_command_makes_a_film(tmp_path, monkeypatch):
    monkeypatch.delenv("TFVAE_DATA", raising=False)
    main = runpy.run_path(str(DOCS / "learning.py"))["main"]
    main.main([str(tmp_path / "x.gif"), "--steps", "200", "--frames", "3"], standalone_mode=False)
    with PIL.Image.open(tmp_path / "x.gif") as film:
        assert film.n_frames == 3
        first = np.asarray(film.convert("L"))
        film.seek(2)
        assert np.abs(np.asarray(film.convert("L")).astype(int) - first).mean() > 5
