"""The live view of a training: lines of text that fit a terminal of any size."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from daso.files import Row
from daso.report.runs import duration

Shares = list[float]

LEVELS = " ▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉█"
ASCII_LEVELS = " .:-=+*%#"
NAME_WIDTH = 16
SPEED_ROWS = 30
"""Rows whose time and steps the time left is worked out from."""


def bar(share: float, width: int, plain: bool) -> str:
    """Return a horizontal bar, *share* of *width* cells long."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if plain:
        return "#" * round(eighths / 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")


def columns(shares: Sequence[float], top: float, width: int, plain: bool) -> str:
    """Return a cell for each share, or for the mean of some neighbours if there are more than *width* of them.

    The height is the square root of the share over *top*, so that small ones are seen; only 0 is empty.
    """
    size = math.ceil(len(shares) / width)
    groups = [shares[i : i + size] for i in range(0, len(shares), size)]
    means = [sum(group) / len(group) for group in groups]
    levels = ASCII_LEVELS if plain else LEVELS
    return "".join(
        levels[min(8, math.ceil(8 * math.sqrt(mean / top)))] if mean > 0 else " " for mean in means
    )


@dataclass
class View:
    """What is known of a training, and how it looks.

    Attributes:
        label: of the run.
        total, step: steps of the run, and done.
        stages: of the run.
        class_names: K names.
        labeled: labelled images of each class; both empty where the classes are not to be shown.
        train, evaluation: the latest row of each kind.
        fold: whether the run is one of a cross-validation, which is measured on what it holds out.
        best: best balanced accuracy so far, and its step.
        plain: use ASCII only.
    """

    label: str
    total: int
    step: int = 0
    stages: int = 1
    class_names: Sequence[str] = ()
    labeled: Sequence[int] = ()
    train: Row = field(default_factory=dict)
    evaluation: Row = field(default_factory=dict)
    fold: bool = False
    best: tuple[float, int] | None = None
    plain: bool = False
    started: float = field(default_factory=time.monotonic)
    speed: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=SPEED_ROWS))

    def see(self, row: Row) -> None:
        """Take in a row."""
        self.step = row["step"]
        if "seconds" in row:
            self.speed.append((row["step"], row["seconds"]))
        if row["event"] == "train":
            self.train = row
        elif row["event"] == "evaluate":
            self.evaluation = row
            _, measured = self.measured()
            value = measured.get("balanced_accuracy")
            if (
                value is not None
                and not math.isnan(value)
                and (self.best is None or value > self.best[0])
            ):
                self.best = (value, row["step"])

    def measured(self) -> tuple[str, Row]:
        """Return what the latest evaluation measured, and on which images; empty if it did not."""
        names = ("holdout", "test") if self.fold else ("test", "holdout")
        name = next((name for name in names if self.evaluation.get(name)), "")
        return {"test": "test", "holdout": "held-out", "": ""}[name], self.evaluation.get(name, {})

    def seconds_left(self) -> float:
        """Return the time left at the latest speed, evaluations included; infinite while it is not known."""
        if len(self.speed) > 1:
            (first, begin), (last, end) = self.speed[0], self.speed[-1]
            if last > first and end > begin:
                return (self.total - self.step) * (end - begin) / (last - first)
        speed = self.train.get("steps_per_second")
        return (self.total - self.step) / speed if speed else math.inf

    def numbers(self) -> list[str]:
        """Return losses, share over the threshold and balanced accuracy, as far as they are known."""
        parts = [f"loss {self.train['loss']:.3f}"] if self.train else []
        losses = self.train.get("losses", {})
        if len(losses) > 1:
            parts.append(
                "(" + " ".join(f"{name} {value:.3f}" for name, value in losses.items()) + ")"
            )
        if "share_confident" in self.train:
            parts.append(f"over threshold {self.train['share_confident']:.0%}")
        _, measured = self.measured()
        if measured:
            parts.append(f"balanced accuracy {measured['balanced_accuracy']:.1%}")
        if "steps_per_second" in self.train:
            parts.append(f"{self.train['steps_per_second']:.1f} steps/s")
        return parts

    def worst(self, count: int = 3) -> list[tuple[str, float]]:
        """Return the classes of lowest measured recall."""
        recall = self.measured()[1].get("recall") or []
        if len(self.class_names) != len(recall) or len(recall) < 2:
            return []
        known = [
            (value, k)
            for k, value in enumerate(recall)
            if value is not None and not math.isnan(value)
        ]
        return [(self.class_names[k], value) for value, k in sorted(known)[:count]]

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the view as at most *height* lines of at most *width* cells."""
        head = [self._title(width), self._progress(width)]
        body = self._state_lines()
        lines = (head + body)[:height] if height > 1 else head[1:]
        room = height - len(lines)
        classes = len(self.class_names)
        if classes and room >= 4:
            rows = self._class_rows(width) if classes + 2 <= room else self._class_columns(width)
            lines += [Text(), *rows][:room]
        for line in lines:
            line.truncate(width, overflow="ellipsis" if not self.plain else "crop")
        return lines

    def _title(self, width: int) -> Text:
        latest = max(self.train, self.evaluation, key=lambda row: row.get("step", 0))
        stage = int(latest.get("stage", 0))
        right = f"stage {stage + 1} of {self.stages}  " if self.stages > 1 else ""
        right += f"{duration(time.monotonic() - self.started)} so far"
        left = set_cell_size(self.label, max(0, min(cell_len(self.label), width - len(right) - 2)))
        return Text.assemble(
            (left, "bold"), " " * max(2, width - cell_len(left) - len(right)), (right, "dim")
        )

    def _progress(self, width: int) -> Text:
        done = self.step / max(1, self.total)
        words = f" {self.step:,}/{self.total:,}"
        if self.train:
            words += f"  {self.train['steps_per_second']:.1f} steps/s  {duration(self.seconds_left())} left"
        room = max(0, width - len(words))
        filled = round(done * room)
        full, rest = ("#", ".") if self.plain else ("━", "─")
        return Text.assemble((full * filled, "green"), (rest * (room - filled), "dim"), words)

    def _state_lines(self) -> list[Text]:
        lines = []
        if self.train:
            losses = self.train.get("losses", {})
            parts = (
                "".join(f"  {name} {value:.3f}" for name, value in losses.items())
                if len(losses) > 1
                else ""
            )
            lines.append(
                Text.assemble("loss ", (f"{self.train['loss']:.3f}", "bold"), (parts, "dim"))
            )
        line = Text()
        if "share_confident" in self.train:
            line.append("over threshold ").append(f"{self.train['share_confident']:.0%}   ", "bold")
        where, measured = self.measured()
        if measured:
            line.append("balanced accuracy ").append(f"{measured['balanced_accuracy']:.1%}", "bold")
            line.append(f" on {where} images")
            if self.best is not None and self.best[1] != self.evaluation["step"]:
                line.append(f", best {self.best[0]:.1%} at {self.best[1]:,}", "dim")
        if line:
            lines.append(line)
        worst = self.worst()
        if worst:
            names = ", ".join(
                f"{set_cell_size(n, min(cell_len(n), NAME_WIDTH))} {v:.0%}" for n, v in worst
            )
            lines.append(Text(f"worst recall: {names}"))
        return lines

    def _shares(self) -> tuple[list[int], Shares, Shares | None, Shares | None]:
        """Return the classes, most labelled images first, and the shares of labels, pseudo-labels and truth."""
        order = sorted(range(len(self.labeled)), key=lambda k: -self.labeled[k])
        total = max(1, sum(self.labeled))
        final = self.evaluation.get("pseudo_labels", {}).get("final", {})
        pick = {
            name: [final[name][k] for k in order]
            for name in ("distribution", "truth")
            if name in final
        }
        return (
            order,
            [self.labeled[k] / total for k in order],
            pick.get("distribution"),
            pick.get("truth"),
        )

    def _class_rows(self, width: int) -> list[Text]:
        order, labeled, guessed, truth = self._shares()
        recall = self.measured()[1].get("recall")
        pseudo_labels = self.evaluation.get("pseudo_labels", {})
        confident = pseudo_labels.get("confident", {}).get("distribution")
        share = pseudo_labels.get("share_confident", 0.0)
        names = max(5, min(NAME_WIDTH, max(cell_len(name) for name in self.class_names)))
        numbers = [("truth*", truth), ("sure", confident), ("recall", recall)]
        shown = [(title, values) for title, values in numbers if values is not None]
        pairs = 2 if guessed else 1
        while shown and width - names - 2 - 8 * len(shown) < 15 * pairs:
            shown.pop(0)
        bars = max(3, min(30, (width - names - 2 - 8 * len(shown)) // pairs - 8))
        top = max([*labeled, *(guessed or [])])
        head = set_cell_size("class", names + 2) + f"{'labelled':<{bars + 8}}"
        head += f"{'pseudo-labels':<{bars + 8}}" if guessed else ""
        lines = [Text(head + "".join(f"{title:>8}" for title, _ in shown), "dim")]
        for place, k in enumerate(order):
            line = Text(set_cell_size(self.class_names[k], names) + "  ")
            for value, style in ((labeled, "bright_black"), (guessed, "green")):
                if value is not None:
                    drawn = f"{bar(value[place] / top, bars, self.plain)} {value[place]:.1%}"
                    line.append(f"{drawn:<{bars + 8}}", style)
            for title, numbers_of in shown:
                if title == "sure":
                    mine = guessed[place] if guessed else 0.0
                    value_of: float | None = share * numbers_of[k] / mine if mine else 0.0
                else:
                    value_of = numbers_of[place] if title == "truth*" else numbers_of[k]
                known = value_of is not None and not math.isnan(value_of)
                style = "yellow" if title == "sure" and not value_of else ""
                line.append(f"{value_of:>8.1%}" if known else f"{'-':>8}", style)
            lines.append(line)
        notes = ["sure: its pseudo-labels over the threshold"] if "sure" in dict(shown) else []
        notes += ["* unknown to the training"] if "truth*" in dict(shown) else []
        return [*lines, Text("; ".join(notes), "dim")]

    def _class_columns(self, width: int) -> list[Text]:
        order, labeled, guessed, truth = self._shares()
        room = max(1, width - NAME_WIDTH)
        size = math.ceil(len(order) / room)
        top = max([*labeled, *(guessed or []), *(truth or [])])
        found = self.measured()[1].get("recall")
        recall = (
            None
            if found is None
            else [v if (v := found[k]) is not None and v == v else 0.0 for k in order]
        )
        lines = [
            Text.assemble(
                f"{title:<{NAME_WIDTH}}", (columns(values, highest, room, self.plain), style)
            )
            for title, values, highest, style in (
                ("labelled", labeled, top, "bright_black"),
                ("pseudo-labels", guessed, top, "green"),
                ("truth*", truth, top, ""),
                ("recall", recall, 1.0, "cyan"),
            )
            if values is not None
        ]
        note = f"{len(order)} classes" + (f", {size} to a column" if size > 1 else "")
        note += ", most labels first; height: root" + (
            "; * unknown to the training" if truth is not None else ""
        )
        return [*lines, Text(note, "dim")]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the view into the terminal, one line less than it is high."""
        yield from self.lines(options.max_width, max(1, console.height - 1))


def shown_classes(data: Row) -> dict[str, Any]:
    """Return the arguments of a view that a run's ``data.json`` decides."""
    return {"class_names": data["class_names"], "labeled": data["labeled_counts"]}
