"""For Beam's ``--setup_file ./setup.py``, which packs the package for its workers; ``pyproject.toml`` has the rest."""

from setuptools import setup

setup()
