"""Jobs that are whole, resumable and counted, whatever they do: the commit protocol, and how a plan is run by Beam."""

from . import prometheus
from .calls import Call
from .execution import Job, Summary, claimed, reporting, version
from .generations import Generations, growing
from .progress import Progress

__all__ = [
    "Call",
    "Generations",
    "Job",
    "Progress",
    "Summary",
    "claimed",
    "growing",
    "prometheus",
    "reporting",
    "version",
]
