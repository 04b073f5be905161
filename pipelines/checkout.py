"""In a checkout ``pipelines`` is another name of ``tfvae.pipelines``, and no second copy of its modules.

What a driver pickles names its module, and a worker that has installed the package finds ``tfvae.pipelines`` alone.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence

_HERE = "tfvae."


def same_modules() -> types.ModuleType:
    """Lets ``import pipelines.x`` give ``tfvae.pipelines.x``; returns ``tfvae.pipelines``."""
    sys.meta_path.insert(0, _Finder())
    return importlib.import_module(f"{_HERE}pipelines")


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """For a module of ``pipelines``, the other's file, so that ``python -m`` runs it."""
        spec = importlib.util.find_spec(_HERE + name) if name.startswith("pipelines.") else None
        if spec is None or spec.origin is None:
            return None
        inside = spec.submodule_search_locations
        loader = _Loader(name, spec.origin)
        return importlib.util.spec_from_file_location(name, loader=loader, submodule_search_locations=inside)


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        """Puts the other module in this one's place."""
        sys.modules[module.__name__] = importlib.import_module(_HERE + module.__name__)
