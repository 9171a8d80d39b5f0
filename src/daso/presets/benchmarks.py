"""Benchmark settings of the DASO paper and of later comparisons, by name."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from daso.data.longtail import Indices, Shape, SplitOptions, longtail_counts, unlabeled_counts
from daso.errors import nearest
from daso.presets.layers import Layer
from daso.presets.sources import SOURCES, SourceDefaults

if TYPE_CHECKING:
    from daso.methods.method import Method


@dataclass(frozen=True)
class Preset:
    """A benchmark setting; on the command line its name stands for its source and its defaults.

    Attributes:
        defaults: what the setting decides for open options.
        mismatched: whether labeled and unlabeled images are, or may be, distributed differently.
        pretrained: whether the paper's networks start from ImageNet weights.
    """

    name: str
    title: str
    source: str
    num_classes: int
    defaults: SourceDefaults
    mismatched: bool
    pretrained: bool = False

    @property
    def dist_temperature(self) -> float:
        return self.defaults.temperature_for(self.defaults.split)

    def with_split(self, split: SplitOptions) -> Preset:
        """Return the setting with another split, which decides whether distributions differ."""
        mismatched = self.mismatched if split.unlabeled_head is None else split.mismatched
        return replace(self, defaults=replace(self.defaults, split=split), mismatched=mismatched)

    def layer(self, method: str, learner: type[Method]) -> Layer:
        layer = self.defaults.layer(self.name, method, learner, self.defaults.split)
        return replace(layer, values={**layer.values, **self.options_for(method)})

    def method_for(self, method: str) -> str:
        """Return the method that the paper trains in this setting under a method's name.

        In mismatched settings with a hold-out, its DARP estimates the unlabeled distribution.
        """
        parts = method.split("+")
        can_estimate = self.mismatched and self.defaults.split.holdout
        if can_estimate and "darp" in parts and "estimate" not in parts:
            parts.insert(parts.index("darp"), "estimate")
        return "+".join(parts)

    def options_for(self, method: str) -> dict[str, Any]:
        """Return the hyper-parameters of a method for which the paper has its own values here.

        In mismatched settings ReMixMatch does not align, not even with CReST+, as in the authors'
        configurations.
        """
        parts, options = method.split("+"), dict[str, Any]()
        if "daso" in parts:
            options["dist_temperature"] = self.dist_temperature
        if self.mismatched and parts[0] == "remixmatch":
            options["align"] = False
        return options

    def labeled_counts(self) -> Indices | None:
        """Return the number of labeled images per class, (K,); None: those of the source."""
        split = self.defaults.split
        if split.labeled_head is None:
            return None
        return longtail_counts(split.labeled_head, split.gamma_labeled or 1, self.num_classes)

    def unlabeled_counts(self) -> Indices | None:
        """Return the number of unlabeled images per class, (K,); None: those of the source."""
        split = self.defaults.split
        if split.unlabeled_head is None:
            return None
        shape, gamma = split.unlabeled_shape or "consistent", split.gamma_unlabeled or 1
        return unlabeled_counts(shape, split.unlabeled_head, gamma, self.num_classes)


CLASSES = {"cifar10": 10, "cifar100": 100, "stl10": 10, "semi-aves": 200, "semi-aves-open": 200}
UNLABELED_HEADS = {"cifar10": {500: 4000, 1500: 3000}, "cifar100": {50: 400, 150: 300}, "stl10": {}}
"""M1 in the paper by N1; STL-10 has its own unlabeled images."""
HOLDOUTS = {"cifar10": 5000, "cifar100": 5000, "stl10": 500}
TITLES = {"cifar10": "CIFAR-10-LT", "cifar100": "CIFAR-100-LT", "stl10": "STL-10-LT"}


def _longtail(source: str, labeled: int, gamma: int, shape: Shape = "consistent") -> Preset:
    unlabeled = UNLABELED_HEADS[source].get(labeled)
    split = SplitOptions(labeled, gamma_labeled=gamma, holdout=HOLDOUTS[source])
    heads = f"N1 = {labeled}"
    if unlabeled is not None:
        split = replace(
            split, unlabeled_head=unlabeled, gamma_unlabeled=gamma, unlabeled_shape=shape
        )
        heads += f", M1 = {unlabeled}"
    defaults = SOURCES[source]
    options = {**defaults.options, "batch": 64, "network": "wrn-28-2"}
    return Preset(
        name=f"{source}-n{labeled}-g{gamma}" + ("" if shape == "consistent" else f"-{shape}"),
        title=f"{TITLES[source]}: {heads}, gamma = {gamma}"
        + ("" if shape == "consistent" else f", {shape} unlabeled images"),
        source=source,
        num_classes=CLASSES[source],
        defaults=replace(defaults, split=split, options=options),
        mismatched=unlabeled is None or shape != "consistent",
    )


def _semi_aves(name: str, unlabeled: str) -> Preset:
    title = f"Semi-Aves: birds of 200 species, unlabeled images {unlabeled}"
    return Preset(name, title, name, CLASSES[name], SOURCES[name], mismatched=True, pretrained=True)


_ALL = (
    *(_longtail("cifar10", n, g) for g in (100, 150) for n in (500, 1500)),
    *(_longtail("cifar10", n, 100, s) for s in ("uniform", "reversed") for n in (500, 1500)),
    *(_longtail("cifar100", n, g) for g in (10, 20) for n in (50, 150)),
    # Not in the DASO paper, but measured with it by others.
    *(_longtail("cifar100", n, 10, s) for s in ("uniform", "reversed") for n in (50, 150)),
    *(_longtail("cifar100", 50, 20, s) for s in ("uniform", "reversed")),
    *(_longtail("stl10", n, g) for g in (10, 20) for n in (150, 450)),
    _semi_aves("semi-aves", "of these"),
    _semi_aves("semi-aves-open", "of these and 800 other species"),
)
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def meant(name: str, others: Iterable[str] = ()) -> str:
    """Return ``" Did you mean ...?"`` for an unknown name, or ``""``.

    If presets begin with the same parts (``cifar10-n500``), all of them are named, the most
    similar first; otherwise the nearest of the presets and *others*.
    """
    alike = {preset: _parts_in_common(preset, name) for preset in PRESETS}
    most = max(alike.values())
    names = [*others, *PRESETS]
    if not most or name.lower() in names:
        return nearest(name, names)
    group = [preset for preset, parts in alike.items() if parts == most]
    group.sort(key=lambda preset: -difflib.SequenceMatcher(None, name, preset).ratio())
    *first, last = map(repr, group)
    return f" Did you mean {', '.join(first)}{' or ' if first else ''}{last}?"


def _parts_in_common(one: str, other: str) -> int:
    pairs = zip(one.split("-"), other.lower().split("-"), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
