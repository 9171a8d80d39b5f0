"""Tables of a setting: numbers of each method, differences to a baseline, recall per class."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from daso.files import csv_text
from daso.report.compare.groups import Group, PairKey, Setting, group_runs
from daso.report.compare.shared_classes import limit_run
from daso.report.compare.statistics import FEWEST_PAIRS, MISSING, Difference, holm, pair, spread
from daso.report.data_changes import describe_changes
from daso.report.html.run import UNREADABLE
from daso.report.runs import Array, RunFolder, as_array, at, vector
from daso.report.uncertainty import interval
from daso.report.wording import POOLS, markdown

ADJUSTED = "logit-adjusted"
MEDIAN = ("summary", "median_of_last")
MEASURES: dict[str, tuple[str, ...]] = {
    "balanced accuracy": (*MEDIAN, "balanced_accuracy"),
    ADJUSTED: (*MEDIAN, "logit_adjusted", "balanced_accuracy"),
    "accuracy": (*MEDIAN, "accuracy"),
    "geometric mean": (*MEDIAN, "geometric_mean"),
    "recall, many labels": (*MEDIAN, "recall_many"),
    "recall, medium": (*MEDIAN, "recall_medium"),
    "recall, few labels": (*MEDIAN, "recall_few"),
    "calibration error": (*MEDIAN, "calibration_error"),
    "balanced accuracy, last": ("summary", "last", "balanced_accuracy"),
    "balanced accuracy, best on hold-out": ("summary", "best_on_holdout", "balanced_accuracy"),
    "pseudo-labels over threshold": ("pseudo_labels", "share_confident"),
    "accuracy of pseudo-labels": ("pseudo_labels", "final", "accuracy"),
    "accuracy of those over threshold": ("pseudo_labels", "confident", "accuracy"),
}
"""Path of each number, a median unless its name says otherwise, in summary or last evaluation."""
RARE = "recall, few labels"
TESTED = ("balanced accuracy", ADJUSTED, "accuracy", RARE)
BASELINES = ("fixmatch", "supervised")
COLUMNS = (
    *("setting", "method", "number", "class", "runs", "mean", "std", "seeds", "values"),
    *("baseline", "pairs", "difference", "difference_std", "p_t_test", "p_sign_flips"),
    *("interval_low", "interval_high"),
)
DIFFERENCES = [
    *("number", "method", "pairs", "difference", "95% interval", "better in"),
    *("p (t test)", "p (Holm)", "p (sign flips)"),
]
ENOUGH_PAIRS = 6
"""From here on the sign-flip test can give 0.05."""

Value = Callable[[RunFolder], float]
"""A number of a run in %, NaN if it has none."""


def value_of(run: RunFolder, measure: str) -> float:
    """Return a number of a run in %; NaN if there is none.

    Logit adjustment would balance a classifier twice that was balanced in training.
    """
    if measure == ADJUSTED and run.balanced_by:
        return math.nan
    last = run.evaluations()[-1] if run.evaluations() else {}
    content = {"summary": run.summary, "pseudo_labels": last.get("pseudo_labels", {})}
    value = at(content, *MEASURES[measure])
    return 100 * value if isinstance(value, int | float) else math.nan


def class_recall(run: RunFolder, k: int) -> float:
    """Return the recall of a class in %; NaN if it was not measured."""
    return 100 * float(run.recall()[k])


def _image_interval(run: RunFolder, measure: str | int) -> float:
    """Return half of the 95% interval, in points, of a mean of recalls, from the measured images.

    *measure* is one of ``TESTED``, or a class. NaN if it is unknown.
    """
    recall, part = run.recall(), run.measured_on
    counts = vector(run.data.get(f"{part}_counts"), run.num_classes)
    weights: Array | None = None
    if measure == ADJUSTED:
        adjusted = at(run.summary, "median_of_last", "logit_adjusted", "recall")
        recall = as_array(vector(adjusted, run.num_classes))
    elif measure == "accuracy":
        weights = counts
    elif measure == RARE:
        weights = np.isin(np.arange(run.num_classes), run.groups["few"]).astype(float)
    elif isinstance(measure, int):
        weights = (np.arange(run.num_classes) == measure).astype(float)
    if counts is None or recall.shape != counts.shape:
        return math.nan
    half = interval(recall, counts, weights)
    return math.nan if half is None else 100 * half


def choose_baseline(setting: Setting, name: str | None) -> Group:
    """Return the named group, or FixMatch, or supervised learning, or the first."""
    by_name = {group.name: group for group in setting.groups}
    names = (name, *BASELINES, setting.groups[0].name)
    return next(by_name[name] for name in names if name in by_name)


@dataclass(frozen=True)
class Compared:
    """The groups of a setting, compared with one of them, the baseline."""

    setting: Setting
    baseline: Group

    @property
    def others(self) -> list[Group]:
        return [group for group in self.setting.groups if group is not self.baseline]

    def measures(self) -> list[str]:
        runs = [run for group in self.setting.groups for run in group.runs.values()]
        return [n for n in MEASURES if any(not math.isnan(value_of(run, n)) for run in runs)]

    def difference(self, group: Group, value: Value) -> Difference:
        """Return the paired differences of a group to the baseline, in points."""
        values, base = (
            {key: value(run) for key, run in runs.items()} for runs in self._pairable(group)
        )
        return pair(values, base)

    def _pairable(self, group: Group) -> tuple[dict[PairKey, RunFolder], dict[PairKey, RunFolder]]:
        return group.keyed(self.baseline), self.baseline.keyed(group)

    def comparable(self, group: Group, measure: str | int) -> bool:
        """Whether a measure is of the same classes in a group and in the baseline."""
        of_third = isinstance(measure, str) and measure.startswith("recall, ")
        return not of_third or group.first.groups == self.baseline.first.groups

    def half_interval(self, group: Group, one: Difference, measure: str | int) -> float:
        """Return half of the 95% interval of a difference, in points; NaN if it is unknown.

        From three pairs on it is that of their mean. With fewer it is that of two shares of
        independent images, which is too wide for the same images, and leaves out the seed.
        """
        if len(one.values) >= FEWEST_PAIRS or not one.values:
            return one.half_interval
        runs, base = self._pairable(group)
        pairs = [(run, base[key]) for key, run in runs.items() if key in base]
        halves = [math.hypot(*(_image_interval(r, measure) for r in both)) for both in pairs]
        return float(np.mean(halves))

    def table(self) -> list[list[str]]:
        """Return runs, and mean ± standard deviation of each number in %; names come first."""
        measures = self.measures()
        lines = [["method", "runs", *measures]]
        for group in self.setting.groups:
            cells = [_spread(group, partial(value_of, measure=name)) for name in measures]
            lines.append([group.name, str(len(group.runs)), *cells])
        return lines

    def difference_table(self) -> list[list[str]]:
        lines = [DIFFERENCES]
        for measure in TESTED:
            value = partial(value_of, measure=measure)
            differences = [self.difference(group, value) for group in self.others]
            adjusted = holm([difference.t_test for difference in differences])
            for group, one, corrected in zip(self.others, differences, adjusted, strict=True):
                if measure == ADJUSTED and (_is_balanced(group) or _is_balanced(self.baseline)):
                    continue
                if not self.comparable(group, measure):
                    continue
                n, half = len(one.values), self.half_interval(group, one, measure)
                line = [measure, group.name, str(n), _signed(one)]
                line.append(MISSING if math.isnan(half) else _range(one, half))
                line.append(f"{one.better} of {n}" if n else MISSING)
                tests = (one.t_test, corrected, one.sign_flip_test)
                lines.append([*line, *map(probability, tests)])
        return lines

    def class_table(self) -> list[list[str]]:
        """Return recall of each class in %, most labeled images first, and differences."""
        groups = self.setting.groups
        lines = [["class", "labeled", *(group.name for group in groups)]]
        lines[0] += [f"{group.name}: difference" for group in self.others]
        for k in self.setting.first.order:
            value = partial(class_recall, k=k)
            counts = dict.fromkeys(str(group.first.data["labeled_counts"][k]) for group in groups)
            line = [self.setting.first.class_names[k], " / ".join(counts)]
            line += [_spread(group, value) for group in groups]
            for group in self.others:
                one = self.difference(group, value)
                half = self.half_interval(group, one, k)
                few = len(one.values) < FEWEST_PAIRS and not math.isnan(half)
                line.append(f"{one.mean:+.1f} ({_range(one, half)})" if few else _signed(one))
            lines.append(line)
        return lines

    def notes(self) -> list[str]:
        measured_on = POOLS[self.setting.first.summary["measured_on"]]
        notes = [
            f"In %, on {measured_on} images: mean ± standard deviation over seeds; medians of the "
            f"last evaluations unless named.",
            *self.setting.notes,
        ]
        runs = [run for group in self.setting.groups for run in group.runs.values()]
        left_out = np.isnan([run.recall() for run in runs]).any(0)
        if left_out.any():
            names = ", ".join(self.setting.first.class_names[k] for k in np.flatnonzero(left_out))
            notes.append(f"No {measured_on} images, so the means are without them: {names}.")
        balanced = [group.name for group in self.setting.groups if _is_balanced(group)]
        if balanced:
            notes.append(
                f"No logit-adjusted numbers of {', '.join(balanced)}: these classifiers were "
                f"balanced in training; adjusting them again would favor the rare classes."
            )
        if not self.others:
            return [
                *notes,
                "Nothing is compared here: all runs have the same method, options and data.",
            ]
        value = partial(value_of, measure=TESTED[0])
        counts = sorted(len(self.difference(group, value).values) for group in self.others)
        if not counts[-1]:
            return [
                *notes,
                f"No differences: no other run has the seed, the split and the images of one of "
                f"{self.baseline.name}.",
            ]
        notes.append(
            f"Differences from {self.baseline.name} are in points, between runs with the same "
            f"seed, split and images, or with the same seed and options on other data. The paired "
            f"t test assumes normal differences; Holm's p corrects for the number of methods; the "
            f"sign-flip test assumes only symmetry. Single classes are not tested."
        )
        if counts[0] < FEWEST_PAIRS:
            notes.append(
                f"With fewer than {FEWEST_PAIRS} pairs, a difference is not tested, and its 95% "
                f"interval is that of independent images: too wide for runs measured on the same "
                f"images, and without the difference between seeds."
            )
        if not all(self.comparable(group, RARE) for group in self.others):
            notes.append(
                "The runs have their few labels in different classes: these recalls are means over "
                "different classes, and have no difference."
            )
        if FEWEST_PAIRS <= counts[-1] < ENOUGH_PAIRS:
            notes.append(
                f"With {counts[-1]} pairs, the sign-flip test cannot go below "
                f"{2 / 2 ** counts[-1]:.2g}, and the t test depends on normality. Use "
                f"{ENOUGH_PAIRS} seeds or more for evidence."
            )
        return notes


def _is_balanced(group: Group) -> bool:
    return all(run.balanced_by for run in group.runs.values())


def _spread(group: Group, value: Value) -> str:
    return spread([v for run in group.runs.values() if not math.isnan(v := value(run))])


def _signed(difference: Difference) -> str:
    if not difference.values:
        return MISSING
    text = f"{difference.mean:+.1f}"
    return text if len(difference.values) == 1 else f"{text} ± {difference.deviation:.1f}"


def _ends(difference: Difference, half: float) -> tuple[float, float]:
    """Return the ends of the interval of a difference of two shares, in points."""
    ends = difference.mean - half, difference.mean + half
    return max(-100.0, ends[0]), min(100.0, ends[1])


def _range(difference: Difference, half: float) -> str:
    low, high = _ends(difference, half)
    return f"{low:+.1f} to {high:+.1f}"


def probability(p: float) -> str:
    """Return a p value as text."""
    if math.isnan(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def leave_out_damaged(runs: Sequence[RunFolder]) -> tuple[list[RunFolder], list[str]]:
    """Return the runs that fit into the tables, and why others do not."""
    kept, problems = [], []
    for run in runs:
        try:
            for setting in group_runs([run]):
                alone = Compared(setting, setting.groups[0])
                describe_changes(run.data, run.data)
                limit_run(run, run.data["class_names"])
                _image_interval(run, TESTED[0])
                to_markdown([alone])
                to_csv([alone])
            kept.append(run)
        except UNREADABLE as error:
            problems.append(
                f"left out: a file of {run.path} has unexpected contents "
                f"({type(error).__name__}: {error})"
            )
    return kept, problems


def to_markdown(compared: Sequence[Compared], problems: Sequence[str] = ()) -> str:
    """Return all tables of all settings as Markdown."""
    lines = ["# Comparison", "", *(f"* {markdown(problem)}" for problem in problems)]
    lines += [""] if problems else []
    for one in compared:
        notes = (f"* {markdown(note)}" for note in one.notes())
        lines += [f"## {markdown(one.setting.title)}", "", *notes, ""]
        tables = {
            "": one.table(),
            f"Differences from {markdown(one.baseline.name)}": one.difference_table(),
            "Recall per class": one.class_table(),
        }
        for title, table in tables.items():
            if len(table) > 1:
                lines += ([f"### {title}", ""] if title else []) + [*_pipes(table), ""]
    return "\n".join(lines)


def _pipes(table: Sequence[Sequence[str]]) -> list[str]:
    texts = [f"| {' | '.join(map(markdown, row))} |" for row in table]
    return [texts[0], "|---" + "|---:" * (len(table[0]) - 1) + "|", *texts[1:]]


def to_csv(compared: Sequence[Compared]) -> str:
    """Return one line per number or class recall and method, with all digits."""
    rows = []
    for one in compared:
        first = one.setting.first
        numbers: list[tuple[str, str, str | int, Value]] = [
            (name, "", name, partial(value_of, measure=name)) for name in one.measures()
        ]
        numbers += [
            ("recall", first.class_names[k], k, partial(class_recall, k=k)) for k in first.order
        ]
        for group in one.setting.groups:
            for name, class_name, measure, value in numbers:
                cells = _cells(one, group, measure, value)
                rows.append((one.setting.title, group.name, name, class_name, *cells))
    return csv_text(COLUMNS, rows)


def _cells(one: Compared, group: Group, measure: str | int, value: Value) -> list[Any]:
    values = {seed: v for seed, run in group.runs.items() if not math.isnan(v := value(run))}
    numbers = list(values.values())
    mean = float(np.mean(numbers)) if numbers else None
    deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    seeds, texts = (" ".join(map(str, part)) for part in (values, numbers))
    compared = group is not one.baseline and one.comparable(group, measure)
    difference = one.difference(group, value) if compared else Difference(())
    tests = (difference.mean, difference.deviation, difference.t_test, difference.sign_flip_test)
    half = math.nan
    if compared and (measure in TESTED or isinstance(measure, int)):
        half = one.half_interval(group, difference, measure)
    ends = (math.nan, math.nan) if math.isnan(half) else _ends(difference, half)
    shown = [None if math.isnan(value) else value for value in (*tests, *ends)]
    pairs = len(difference.values)
    return [len(numbers), mean, deviation, seeds, texts, one.baseline.name, pairs, *shown]
