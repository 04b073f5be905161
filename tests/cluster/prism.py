"""Prism, Beam's local runner in Go: one process, and a Python worker for each job."""

import pathlib

from tests.cluster.processes import Cluster


class Prism(Cluster):
    """See ``Cluster``.

    Args:
        folder: See ``Cluster``.
        program: Prism's own.
    """

    def __init__(self, folder: pathlib.Path, program: pathlib.Path):
        super().__init__(folder)
        self._program = program

    def _launch(self) -> None:
        self._start("prism", str(self._program), "--job_port", str(self._jobs), "--serve_http=false")

    def _slots_now(self) -> int:
        return self.slots
