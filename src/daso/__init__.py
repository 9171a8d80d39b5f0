"""Train image classifiers from few, class-imbalanced labels and many unlabeled images."""

from importlib import import_module

TYPE_CHECKING = False  # as of typing, which takes longer to import than everything here
if TYPE_CHECKING:
    from daso.estimator import DASOClassifier as DASOClassifier
    from daso.export import load as load

_WHERE = {"DASOClassifier": "daso.estimator", "load": "daso.export"}
"""What the package offers, and the module that has it; imported when it is asked for."""

__all__ = ["DASOClassifier", "load"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_WHERE]
