"""Jobs that are whole, resumable and counted, whatever they do: the commit protocol, and how a plan is run by Beam."""

from pipelines.jobs.execution import Job, Summary, claimed, reporting
from pipelines.jobs.progress import Progress

__all__ = ["Job", "Progress", "Summary", "claimed", "reporting"]
