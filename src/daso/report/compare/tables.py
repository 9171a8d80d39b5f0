"""Tables of a setting: numbers of each method, differences to one of them, recall per class."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from daso.report.compare.groups import Group, Setting, group_runs
from daso.report.compare.statistics import FEWEST, MISSING, Difference, holm, pair, spread
from daso.report.html.run import UNREADABLE
from daso.report.runs import Array, RunFolder, as_array

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
"""Where each number stands: in the summary, medians of the last evaluations unless named; or in the last evaluation."""
TESTED = ("balanced accuracy", ADJUSTED, "accuracy", "recall, few labels")
"""Numbers whose differences are tested."""
BASELINES = ("fixmatch", "supervised")


def value_of(run: RunFolder, measure: str) -> float:
    """Return a number of a run in %; NaN where there is none, or none that means anything.

    A classifier that was balanced in training has no logit-adjusted number: it would be balanced twice.
    """
    if measure == ADJUSTED and run.balanced_by:
        return math.nan
    last = run.evaluations()[-1] if run.evaluations() else {}
    start: Any = {"summary": run.summary, "pseudo_labels": last.get("pseudo_labels", {})}
    found = reduce(lambda value, name: value.get(name, {}), MEASURES[measure], start)
    return 100 * found if isinstance(found, int | float) else math.nan


def known(values: Sequence[float]) -> list[float]:
    """Return what is not NaN."""
    return [value for value in values if not math.isnan(value)]


def choose_baseline(setting: Setting, wanted: str | None) -> Group:
    """Return the group that differences are to: the wanted one, or FixMatch, or supervised learning, or the first."""
    by_name = {group.name: group for group in setting.groups}
    for name in (wanted, *BASELINES):
        if name in by_name:
            return by_name[name]
    return setting.groups[0]


@dataclass(frozen=True)
class Compared:
    """The numbers of a setting.

    Attributes:
        setting: what is compared.
        baseline: the group that differences are to.
        order: classes, most labelled images first.
    """

    setting: Setting
    baseline: Group
    order: list[int] = field(init=False)

    def __post_init__(self) -> None:
        counts = as_array(self.setting.first.data["labeled_counts"])
        object.__setattr__(self, "order", [int(k) for k in np.argsort(-counts, kind="stable")])

    @property
    def others(self) -> list[Group]:
        """The groups that are compared to the baseline."""
        return [group for group in self.setting.groups if group is not self.baseline]

    def measures(self) -> list[str]:
        """Return the numbers that any run has."""
        runs = [run for group in self.setting.groups for run in group.runs.values()]
        return [
            name for name in MEASURES if any(not math.isnan(value_of(run, name)) for run in runs)
        ]

    def values(self, group: Group, measure: str) -> list[float]:
        """Return a number of each run of a group, those that have it."""
        return known([value_of(run, measure) for run in group.runs.values()])

    def difference(self, group: Group, measure: str) -> Difference:
        """Return the paired differences of a group to the baseline, in points."""
        own, base = (
            {key: value_of(run, measure) for key, run in g.by_data().items()}
            for g in (group, self.baseline)
        )
        return pair(own, base)

    def recalls(self, group: Group) -> Array:
        """Return recall in % of each class in each run (n, K)."""
        return 100 * np.stack([run.recall() for run in group.runs.values()])

    def class_difference(self, group: Group, k: int) -> Difference:
        """Return the paired differences of the recall of a class to the baseline's, in points."""
        own, base = (
            {key: 100 * float(run.recall()[k]) for key, run in g.by_data().items()}
            for g in (group, self.baseline)
        )
        return pair(own, base)

    def table(self) -> list[list[str]]:
        """Return method, runs, and mean ± standard deviation of each number in %; the first line has the names."""
        names = self.measures()
        lines = [["method", "runs", *names]]
        for group in self.setting.groups:
            lines.append(
                [group.name, str(len(group.runs)), *(spread(self.values(group, n)) for n in names)]
            )
        return lines

    def difference_table(self) -> list[list[str]]:
        """Return the differences to the baseline, with their tests."""
        lines = [
            [
                "number",
                "method",
                "pairs",
                "difference",
                "95% interval",
                "better in",
                "p (t test)",
                "p (Holm)",
                "p (sign flips)",
            ]
        ]
        for measure in TESTED:
            found = [self.difference(group, measure) for group in self.others]
            adjusted = holm([difference.t_test for difference in found])
            for group, difference, corrected in zip(self.others, found, adjusted, strict=True):
                if measure == ADJUSTED and (_is_balanced(group) or _is_balanced(self.baseline)):
                    continue
                n, half = len(difference.values), difference.half_interval
                low, high = difference.mean - half, difference.mean + half
                lines.append(
                    [
                        measure,
                        group.name,
                        str(n),
                        _signed(difference),
                        MISSING if math.isnan(half) else f"{low:+.1f} to {high:+.1f}",
                        f"{difference.better} of {n}" if n else MISSING,
                        *map(
                            probability, (difference.t_test, corrected, difference.sign_flip_test)
                        ),
                    ]
                )
        return lines

    def class_table(self) -> list[list[str]]:
        """Return recall of each class in %, most labelled images first, and differences to the baseline."""
        data = self.setting.first.data
        lines = [["class", "labelled", *(group.name for group in self.setting.groups)]]
        lines[0] += [f"{group.name}: difference" for group in self.others]
        recalls = [self.recalls(group) for group in self.setting.groups]
        for k in self.order:
            line = [data["class_names"][k], str(data["labeled_counts"][k])]
            line += [spread(known(recall[:, k].tolist())) for recall in recalls]
            lines.append(line + [_signed(self.class_difference(group, k)) for group in self.others])
        return lines

    def notes(self) -> list[str]:
        """Return how to read the numbers, and what to beware of."""
        counts = sorted({len(self.difference(group, TESTED[0]).values) for group in self.others})
        first = self.setting.first
        notes = [
            f"In %, on {first.summary['measured_on']} images: mean ± standard deviation over seeds, medians of the "
            f"last evaluations unless named.",
            *self.setting.notes,
        ]
        balanced = [group.name for group in self.setting.groups if _is_balanced(group)]
        if balanced:
            notes.append(
                f"No logit-adjusted numbers of {', '.join(balanced)}: training has balanced these classifiers, and "
                f"adjusting them once more would favour the rare classes."
            )
        if self.others:
            notes.append(
                f"Differences to {self.baseline.name} are of the same seed, split and images, in points. The paired "
                f"t test takes them for normal; Holm's p allows for the number of methods; the sign-flip test assumes "
                f"only symmetry. Classes are not tested one by one."
            )
        if counts and counts[0] < FEWEST:
            notes.append(
                f"A method with fewer than {FEWEST} pairs is not tested: it would mean nothing."
            )
        if counts and FEWEST <= counts[-1] < 6:
            notes.append(
                f"With {counts[-1]} pairs no sign-flip test can give less than {2 / 2 ** counts[-1]:.2g}, and the t "
                f"test rests on normality: six seeds or more are evidence, fewer a hint."
            )
        return notes


def _is_balanced(group: Group) -> bool:
    return all(run.balanced_by for run in group.runs.values())


def leave_out_damaged(runs: Sequence[RunFolder]) -> tuple[list[RunFolder], list[str]]:
    """Return the runs whose numbers can be put into tables, and why others cannot: their files hold something else."""
    kept, problems = [], []
    for run in runs:
        try:
            for setting in group_runs([run]):
                alone = Compared(setting, setting.groups[0])
                to_markdown([alone])
                to_csv([alone])
            kept.append(run)
        except UNREADABLE as error:
            problems.append(
                f"left out: a file of {run.path} does not hold what it should ({type(error).__name__}: {error})"
            )
    return kept, problems


def probability(p: float) -> str:
    """Return a p value as text."""
    if math.isnan(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _signed(difference: Difference) -> str:
    if not difference.values:
        return MISSING
    text = f"{difference.mean:+.1f}"
    return text if len(difference.values) == 1 else f"{text} ± {difference.deviation:.1f}"


def to_markdown(compared: Sequence[Compared], problems: Sequence[str] = ()) -> str:
    """Return all tables of all settings as Markdown."""
    lines = ["# Comparison", ""]
    lines += [f"* {problem}" for problem in problems] + ([""] if problems else [])
    for one in compared:
        lines += [f"## {one.setting.title}", "", *(f"* {note}" for note in one.notes()), ""]
        tables = {"": one.table(), f"Differences to {one.baseline.name}": one.difference_table()}
        tables["Recall per class"] = one.class_table()
        for title, table in tables.items():
            if len(table) > 1:
                lines += ([f"### {title}", ""] if title else []) + [*_pipes(table), ""]
    return "\n".join(lines)


def _pipes(table: Sequence[Sequence[str]]) -> list[str]:
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in table]
    texts = [f"| {' | '.join(row)} |" for row in rows]
    return [texts[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *texts[1:]]


def to_csv(compared: Sequence[Compared]) -> str:
    """Return a line for each number and each class's recall of each method: all digits, and the paired differences."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        (
            "setting",
            "method",
            "number",
            "class",
            "runs",
            "mean",
            "std",
            "seeds",
            "values",
            "baseline",
            "pairs",
            "difference",
            "difference_std",
            "p_t_test",
            "p_sign_flips",
        )
    )
    for one in compared:
        names = one.setting.first.class_names
        for group in one.setting.groups:
            compares = group is not one.baseline
            for measure in one.measures():
                values = {seed: value_of(run, measure) for seed, run in group.runs.items()}
                difference = one.difference(group, measure) if compares else Difference(())
                writer.writerow(_cells(one, group.name, measure, "", values, difference))
            for k in one.order:
                values = {seed: 100 * float(run.recall()[k]) for seed, run in group.runs.items()}
                difference = one.class_difference(group, k) if compares else Difference(())
                writer.writerow(_cells(one, group.name, "recall", names[k], values, difference))
    return file.getvalue()


def _cells(
    one: Compared,
    method: str,
    number: str,
    name: str,
    values: dict[int, float],
    difference: Difference,
) -> list[Any]:
    values = {seed: value for seed, value in values.items() if not math.isnan(value)}
    numbers = list(values.values())
    mean = float(np.mean(numbers)) if numbers else None
    deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    seeds, texts = (" ".join(map(str, part)) for part in (values, numbers))
    tests = (difference.mean, difference.deviation, difference.t_test, difference.sign_flip_test)
    shown = [None if math.isnan(value) else value for value in tests]
    row = [one.setting.title, method, number, name, len(numbers), mean, deviation, seeds, texts]
    return [*row, one.baseline.name, len(difference.values), *shown]
