"""timm without torchvision, which it imports but whose parts a model that computes features never uses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from daso.errors import MissingDependencyError


class _Name(type):
    """Of the classes that stand in for torchvision's; their attributes are strings, as of enumerations."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {})


class _StandIn(MetaPathFinder, Loader):
    """Finds ``torchvision`` and all its modules; whatever is asked of them is an empty class."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        inside = fullname.partition(".")[0] == "torchvision"
        return ModuleSpec(fullname, self, is_package=True) if inside else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is."""


def import_timm() -> Any:
    """Import timm; where torchvision is missing, or built for another torch, without it.

    What needs torchvision in timm, its transforms and data sets, does not work then; models do.

    Raises:
        MissingDependencyError: timm is not installed, or cannot be imported at all.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torchvision":
            raise _missing(error) from error
    except (ImportError, RuntimeError):
        pass  # a torchvision of another build of torch raises a RuntimeError
    stand_in = _StandIn()
    _forget("timm", "torchvision")
    sys.meta_path.insert(0, stand_in)
    try:
        return importlib.import_module("timm")
    except (ImportError, RuntimeError, AttributeError, TypeError) as error:
        _forget("timm")
        raise _missing(error) from error
    finally:
        sys.meta_path.remove(stand_in)
        _forget("torchvision")
        importlib.invalidate_caches()


def _forget(*packages: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def _missing(error: BaseException) -> MissingDependencyError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return MissingDependencyError(
        f"models called timm:NAME need timm: pip install 'daso[timm]' ({reason})"
    )
