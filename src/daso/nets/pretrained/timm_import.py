"""Import timm without torchvision, whose parts its models never use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from daso.errors import MissingDependencyError, first_line


class _StandInClass(type):
    """Metaclass of classes whose attributes are strings, like those of enumerations."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _StandInModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandInClass(name, (), {})


class _StandInFinder(MetaPathFinder, Loader):
    """Finds ``torchvision`` and its modules; every name in them is an empty class."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        inside = fullname.partition(".")[0] == "torchvision"
        return ModuleSpec(fullname, self, is_package=True) if inside else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def import_timm() -> Any:
    """Import timm, even if torchvision is missing or was built for another torch.

    Without torchvision, timm's transforms and data sets do not work; its models do. Raises a
    ``MissingDependencyError`` if timm cannot be imported.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torchvision":
            raise _missing(error) from error
    except (ImportError, RuntimeError):
        pass  # torchvision was built for another torch
    finder = _StandInFinder()
    _forget("timm", "torchvision")
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError, AttributeError, TypeError) as error:
        _forget("timm")
        raise _missing(error) from error
    finally:
        sys.meta_path.remove(finder)
        _forget("torchvision")
        importlib.invalidate_caches()


def _forget(*packages: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def _missing(error: BaseException) -> MissingDependencyError:
    reason = first_line(error)
    return MissingDependencyError(f"timm:NAME needs timm: pip install 'daso[timm]' ({reason})")
