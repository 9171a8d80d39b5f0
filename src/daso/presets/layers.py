"""Decide defaults in one place: by layers of values, the last of which wins."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from daso.catalog import Hyperparameter
from daso.errors import flag
from daso.train.config import GROUPS, RunConfig

GIVEN = "command line"


@dataclass(frozen=True)
class Layer:
    """Values of options, and who decides them.

    Attributes:
        reasons: why, for some options.
        only_with: values that hold only while this layer decides another option too: by option,
            the other one.
    """

    decided_by: str
    values: Mapping[str, Any]
    reasons: Mapping[str, str] = field(default_factory=dict)
    only_with: Mapping[str, str] = field(default_factory=dict)


class Decision(NamedTuple):
    """The value of an option, who decided it, and perhaps why."""

    value: Any
    decided_by: str
    reason: str = ""


def decide(layers: Sequence[Layer]) -> dict[str, Decision]:
    """Return the value of every option that a layer decides; later layers override earlier ones."""
    decisions: dict[str, Decision] = {}
    for layer in reversed(layers):
        own = {
            name: Decision(value, layer.decided_by, layer.reasons.get(name, ""))
            for name, value in layer.values.items()
            if name not in decisions and layer.only_with.get(name) not in decisions
        }
        decisions = own | decisions
    return decisions


def method_layers(hyperparameters: Mapping[str, Hyperparameter]) -> list[Layer]:
    """Return what the parts of a method decide for their hyper-parameters: the defaults."""
    return [Layer(known.part, {name: known.default}) for name, known in hyperparameters.items()]


def configuration(
    source: str, method: str, decisions: Mapping[str, Decision], **places: Any
) -> RunConfig:
    """Return the configuration of a run; what nobody decides has its general default.

    Args:
        places: further fields of the configuration.
    """
    values = values_of(decisions)
    parts = {name: take(kind, values) for name, kind in GROUPS.items()}
    taken = {option.name for kind in GROUPS.values() for option in fields(kind)}
    options = {name: value for name, value in values.items() if name not in taken}
    return RunConfig(source=source, method=method, method_options=options, **parts, **places)


def values_of(decisions: Mapping[str, Decision]) -> dict[str, Any]:
    """Return the values without those who decided them."""
    return {name: decision.value for name, decision in decisions.items()}


def take(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Build a dataclass of options from those of *values* that are its own."""
    names = {option.name for option in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in names})


def describe(
    decisions: Mapping[str, Decision], heading: str, switches: Collection[str]
) -> list[str]:
    """Return decisions as flags of the command line, in texts to print.

    Args:
        switches: options that are written ``--name`` or ``--no-name``, without a value.

    Returns:
        One line for those without a reason, and a table for those with one; none of them, none.
    """
    flags = {
        name: flag(name, decision.value) if name in switches else f"{flag(name)} {decision.value}"
        for name, decision in decisions.items()
    }
    plain = [flags[name] for name, decision in decisions.items() if not decision.reason]
    reasons = {flags[name]: d.reason for name, d in decisions.items() if d.reason}
    texts = [f"{heading}: {' '.join(plain)}"] if plain else []
    if reasons:
        width = max(map(len, reasons))
        lines = [f"  {text:<{width}}  {reason}" for text, reason in reasons.items()]
        texts.append("\n".join([f"{heading}:", *lines]))
    return texts
