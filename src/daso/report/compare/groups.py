"""Find runs in folders, and group those that differ only in the seed."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daso.errors import RunError, named_key, typed
from daso.files import flatten, leads_somewhere, printable
from daso.report.compare.shared_classes import (
    FEWEST_SHARED,
    limit_run,
    same_images,
    shared_names,
    whole_data,
)
from daso.report.data_changes import describe_changes
from daso.report.runs import RunFolder, read_run
from daso.report.wording import POOLS

PairKey = tuple[int, str]
"""A seed and a fingerprint of the data; runs with equal keys saw the same images and split."""
DATA_OPTIONS = ("source", "size", "split")
"""Parts of a configuration that decide the data; runs that differ in them are not compared."""
SIZES = ("labeled_counts", "unlabeled", "holdout_counts", "test_counts")
IGNORED_OPTIONS = {"data", "skip_bad", "journal", "method", "train.seed", "train.device"}


@dataclass(frozen=True)
class Group:
    """Runs of one method that differ in the seed only.

    Attributes:
        name: of the method, with the options and data that differ from its other groups.
        runs: by seed.
        kind: text of method and options; groups with the same differ in their data.
    """

    name: str
    runs: dict[int, RunFolder]
    kind: str

    @property
    def first(self) -> RunFolder:
        return next(iter(self.runs.values()))

    def keyed(self, other: Group) -> dict[PairKey, RunFolder]:
        """Return the runs by the key that must be equal in a pair with a run of *other*.

        Runs that are to show what other data changes, such as more labels, need only a seed.
        """
        by_seed = self.kind == other.kind
        return {(seed, "" if by_seed else data_key(r)): r for seed, r in self.runs.items()}


@dataclass(frozen=True)
class Setting:
    """Groups with the same source, split and kind of measured images, and notes about them."""

    title: str
    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    @property
    def first(self) -> RunFolder:
        return self.groups[0].first


def data_key(run: RunFolder) -> str:
    """Return a fingerprint of the images of a run and their split."""
    data = whole_data(run)
    return json.dumps(
        [data.get("split_fingerprint"), data.get("images_fingerprints")], sort_keys=True
    )


def find_run_folders(paths: Sequence[Path]) -> list[Path]:
    """Return the run folders among *paths* and below them, each once.

    Raises:
        RunError: a path contains no run folder.
    """
    found: dict[Path, None] = {}
    for path in paths:
        below = dict.fromkeys(_below(path))
        if not below:
            reason = "is not a run folder and contains none"
            raise RunError(f"{path} {reason if leads_somewhere(path) else 'does not exist'}")
        found |= below
    return list(found)


def _below(path: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(path):
        folders.sort(key=_natural)
        # Rows without the other files are a damaged run, which is named and left out.
        if {"config.json", "data.json"} <= set(files) or "metrics.jsonl" in files:
            folders.clear()
            yield Path(name)


def _natural(name: str) -> list[Any]:
    parts = itertools.groupby(name, key=str.isdigit)
    return [
        (digits, int(text) if digits else text)
        for digits, chars in parts
        for text in ["".join(chars)]
    ]


def read_runs(paths: Sequence[Path]) -> tuple[list[RunFolder], list[str]]:
    """Return the complete runs of folders, and why others are left out."""
    runs, problems = [], []
    for path in find_run_folders(paths):
        try:
            run = read_run(path)
            if not run.summary:
                problems.append(
                    f"left out: {path} is not complete; 'daso resume {typed(path)}' goes on"
                )
            elif "median_of_last" not in run.summary:
                problems.append(
                    f"left out: {path} is complete, but has neither test nor hold-out images, so "
                    "nothing was measured"
                )
            else:
                runs.append(run)
        except RunError as error:
            problems.append(f"left out: {error}")
    return runs, problems


def _options(run: RunFolder) -> dict[str, Any]:
    values = flatten(
        {name: value for name, value in run.config.items() if name not in DATA_OPTIONS}
    )
    return {name: value for name, value in values.items() if name not in IGNORED_OPTIONS}


def _data_values(run: RunFolder, source: str) -> dict[str, Any]:
    values = flatten({name: run.config.get(name) for name in DATA_OPTIONS})
    measured_on = f"{POOLS[run.summary['measured_on']]} images"
    return {**values, "source": source, "classes": run.class_names, "measured on": measured_on}


def _text(values: dict[str, Any], names: Sequence[str]) -> str:
    short = ((name.rpartition(".")[2].replace("_", "-"), values.get(name)) for name in names)
    return ", ".join(f"without --{n}" if v is None else f"{n} {v}" for n, v in short)


def _differing(several: Sequence[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(itertools.chain(*several))
    return [name for name in names if any(v.get(name) != several[0].get(name) for v in several)]


def group_runs(runs: Sequence[RunFolder]) -> list[Setting]:
    """Return runs by setting, and in each by method and options.

    Runs of a setting whose classes differ are compared over those that all of them have.
    """
    by_data: dict[str, tuple[dict[str, Any], list[RunFolder]]] = {}
    firsts: list[RunFolder] = []
    for run in runs:
        # A copy of a data set, with more labels perhaps, is measured on the same images.
        first = next((one for one in firsts if same_images(one, run)), run)
        if first is run:
            firsts.append(run)
        values = _data_values(run, first.config["source"])
        by_data.setdefault(json.dumps(values, sort_keys=True), (values, []))[1].append(run)
    parts = _joined(list(by_data.values()))
    described = [values for values, *_ in parts]
    differing = [name for name in _differing(described) if name not in ("source", "classes")]
    settings: list[Setting] = []
    for values, members, notes in parts:
        title = Path(values["source"]).name
        title += f" ({_text(values, differing)})" if differing else ""
        if any(title == setting.title for setting in settings):
            title += f", {members[0].path.name}"
        either = {"source": values["source"], "classes": values["classes"]}
        notes += [
            f"not compared with {other.title}, of other classes or measured on other images: "
            f"{'; '.join(told)}"
            for other in settings
            if _data_values(other.first, "") | either == values  # only source or classes differ
            and (told := describe_changes(whole_data(other.first), whole_data(members[0])))
        ]
        settings.append(_setting(title, members, notes))
    return settings


def _joined(
    parts: Sequence[tuple[dict[str, Any], list[RunFolder]]],
) -> list[tuple[dict[str, Any], list[RunFolder], list[str]]]:
    """Join runs of other classes, such as one added by labeling, to those they share some with.

    Returns:
        For each setting what its data is, its runs, limited to the shared classes, and notes.
    """
    joined: list[tuple[dict[str, Any], list[RunFolder], list[Any]]] = []
    for values, members in parts:
        names = members[0].data["class_names"]
        for place, (others, runs, shared) in enumerate(joined):
            both = shared_names(shared, names)
            alike = values | {"classes": others["classes"]} == others
            if alike and len(both) >= FEWEST_SHARED and all(r.evaluations() for r in members):
                joined[place] = others, runs + members, both
                break
        else:
            joined.append((values, list(members), list(names)))
    return [
        (values | {"classes": list(map(printable, shared))}, *_limited(runs, shared))
        for values, runs, shared in joined
    ]


def _limited(runs: list[RunFolder], shared: Sequence[Any]) -> tuple[list[RunFolder], list[str]]:
    if all(run.data["class_names"] == shared for run in runs):
        return runs, []
    every = dict.fromkeys(name for run in runs for name in run.data["class_names"])
    only = ", ".join(printable(name) for name in every if name not in shared)
    note = (
        f"not all runs have the class {only}: they are compared over the {len(shared)} classes "
        f"that all have, by recalls, and means over the images of these classes"
    )
    return [limit_run(run, shared) for run in runs], [note] if only else []


def _setting(title: str, runs: Sequence[RunFolder], notes: list[str]) -> Setting:
    by_options: dict[str, list[RunFolder]] = {}
    for run in runs:
        key = json.dumps([run.method, _options(run)], sort_keys=True, default=str)
        by_options.setdefault(key, []).append(run)
    groups = []
    for kind, members in by_options.items():
        method, options = members[0].method, _options(members[0])
        alike = [_options(other[0]) for other in by_options.values() if other[0].method == method]
        several = _by_images(members)
        for text, same_data in zip(_name_data(several), several, strict=True):
            differing = (_text(options, _differing(alike)) if len(alike) > 1 else "", text)
            differences = ", ".join(filter(None, differing))
            name = f"{method} ({differences})" if differences else method
            groups.append(Group(name, _by_seed(name, same_data, notes), kind))
        first, *others = (group for group in groups if group.kind == kind)
        for group in others:
            changes = describe_changes(*(whole_data(g.first) for g in (first, group)))
            notes.append(f"{group.name}, against {first.name}: {'; '.join(changes)}")
    return Setting(
        title, tuple(groups), tuple(notes + _split_notes(groups) + _option_notes(groups))
    )


def _by_seed(name: str, runs: Sequence[RunFolder], notes: list[str]) -> dict[int, RunFolder]:
    by_seed: dict[int, RunFolder] = {}
    for run in runs:
        seed = run.config["train"]["seed"]
        if seed in by_seed:
            notes.append(
                f"{name}, seed {seed}, occurs twice: {run.path} counts, "
                f"{by_seed[seed].path} does not"
            )
        by_seed[seed] = run
    return dict(sorted(by_seed.items()))


def _by_images(runs: Sequence[RunFolder]) -> list[list[RunFolder]]:
    """Divide runs of equal options into those on the same images and labels, by all that is known.

    A seed gives one split of a data set. Other seeds give others, of the same sizes.
    """
    parts: list[tuple[Any, dict[int, str], list[RunFolder]]] = []
    for run in runs:
        sizes, key = [whole_data(run).get(name) for name in SIZES], data_key(run)
        seed = run.config["train"]["seed"]
        found = (p for p in parts if p[0] == sizes and p[1].get(seed, key) == key)
        part = next(found, None)
        if part is None:
            parts.append(part := (sizes, {}, []))
        part[1][seed] = key
        part[2].append(run)
    return [members for _, _, members in parts]


def _name_data(several: Sequence[Sequence[RunFolder]]) -> list[str]:
    """Return what tells runs on different data apart: labels, and folders where these are equal."""
    if len(several) == 1:
        return [""]
    labels = [f"{sum(whole_data(runs[0])['labeled_counts']):,} labels" for runs in several]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{text}, {runs[0].path.name}" for text, runs in zip(labels, several, strict=True)]


def _split_notes(groups: Sequence[Group]) -> list[str]:
    notes = []
    for seed in sorted({seed for group in groups for seed in group.runs}):
        seen: dict[str, list[Group]] = {}
        for group in groups:
            if seed in group.runs:
                seen.setdefault(data_key(group.runs[seed]), []).append(group)
        if len(seen) > 1 and len({group.kind for part in seen.values() for group in part}) > 1:
            sides = " and ".join(", ".join(g.name for g in part) for part in seen.values())
            notes.append(
                f"seed {seed}: different splits or images for {sides}; different methods are not "
                f"paired across these, and the data contributes to the difference of their means"
            )
    missing = [group.name for group in groups if group.runs.keys() != groups[0].runs.keys()]
    if missing:
        notes.append("the methods have different seeds; differences use common seeds only")
    return notes


def _option_notes(groups: Sequence[Group]) -> list[str]:
    several = [_options(group.first) for group in groups]
    names = [name for name in _differing(several) if not name.startswith("method_options.")]
    notes = []
    for name in names:
        values = "; ".join(
            f"{group.name} {of.get(name)}" for group, of in zip(groups, several, strict=True)
        )
        notes.append(f"{named_key(name)} differs: {values}")
    return notes
