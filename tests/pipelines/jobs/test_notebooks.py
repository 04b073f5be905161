"""A job in a notebook: Beam's interactive runner, and pandas with it, is neither needed nor loaded."""

import os
import subprocess
import sys

import pytest

from ..conftest import ROOT

SHELL = """
class Shell:
    execution_count, config = 3, {"IPKernelApp": {}}

def get_ipython():
    return Shell()
"""
PROGRAM = """
import importlib.abc, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

HIDDEN = sys.argv[2:]
sys.meta_path.insert(0, Hidden())
from pipelines import preprocess
from apache_beam.utils.interactive_utils import is_in_notebook
assert is_in_notebook()
print(preprocess.run("digits", None, sys.argv[1]).rows)
print("apache_beam.runners.interactive.interactive_environment" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [[], ["pandas"]])
def test_prepare_in_a_notebook(tmp_path, hidden):
    (tmp_path / "IPython.py").write_text(SHELL)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / "out"), *hidden]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["{'train': 1607, 'test': 190}", "False"], done.stderr
