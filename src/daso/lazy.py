"""Imports that wait until they are needed, so that commands start fast."""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

Optimizer = TypeVar("Optimizer", bound=type)


def offer(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return the ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Args:
        package: its name.
        modules: the public names, separated by blanks, that each of its modules defines. Type
            checkers see them by imports under ``TYPE_CHECKING``.
    """
    places = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return get, lambda: sorted(places), sorted(places)


def quick(optimizer: Optimizer) -> Optimizer:
    """Return a torch optimizer that is made without torch's compiler, whose import takes a second.

    torch keeps ``add_param_group`` out of compiled code, and imports the compiler for that.
    """
    made: Any = optimizer
    own = {"add_param_group": inspect.unwrap(made.add_param_group)}
    return type(made.__name__, (made,), own)  # type: ignore[return-value]
