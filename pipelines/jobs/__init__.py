"""Jobs that are whole, resumable and counted, whatever they do: the commit protocol, and how a plan is run by Beam."""

from .execution import Job, Summary, claimed, reporting
from .progress import Progress

__all__ = ["Job", "Progress", "Summary", "claimed", "reporting"]
