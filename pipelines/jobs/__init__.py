"""Jobs that are whole, resumable and counted, whatever they do: the commit protocol, and how a plan is run by Beam."""

from pipelines.jobs.execution import Do, Job, Summary, execute, reporting
from pipelines.jobs.progress import Progress

__all__ = ["Do", "Job", "Progress", "Summary", "execute", "reporting"]
