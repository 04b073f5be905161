"""Jobs that are whole, resumable and counted, whatever they do: the commit protocol, and how a plan is run by Beam."""

from . import prometheus
from .execution import Job, Summary, claimed, reporting, version
from .generations import Generations, growing
from .progress import Progress

__all__ = ["Generations", "Job", "Progress", "Summary", "claimed", "growing", "prometheus", "reporting", "version"]
