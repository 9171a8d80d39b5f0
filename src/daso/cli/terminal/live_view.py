"""The live view of a training: lines of text that fit a terminal of any size."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from daso.files import Row
from daso.report.wording import POOLS, duration

LEVELS = " ▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉█"
ASCII_LEVELS = " .:-=+*%#"
NAME_WIDTH = 16
SPEED_ROWS = 30
"""Latest rows from which the time left is computed."""


def bar(share: float, width: int, plain: bool) -> str:
    """Return a horizontal bar, *share* of *width* cells long."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    if plain:
        return "#" * round(eighths / 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")


def columns(shares: Sequence[float], top: float, width: int, plain: bool) -> str:
    """Return a cell for each share; neighbors are averaged if there are more than *width*.

    The height is the square root of the share over *top*, so small shares stay visible; only 0 is
    empty.
    """
    size = math.ceil(len(shares) / width)
    groups = [shares[i : i + size] for i in range(0, len(shares), size)]
    means = [sum(group) / len(group) for group in groups]
    levels = ASCII_LEVELS if plain else LEVELS
    return "".join(
        levels[min(8, math.ceil(8 * math.sqrt(mean / top)))] if mean > 0 else " " for mean in means
    )


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


@dataclass
class View:
    """The state of a training, rendered as text.

    Attributes:
        total, step: steps of the run, and steps done.
        class_names: K names; empty to leave out the classes.
        labeled: labeled images of each class.
        fold: whether the run is a fold of a cross-validation, measured on its hold-out.
        plain: use ASCII only.
        train, evaluation: the latest row of each kind.
        best: best balanced accuracy so far, and its step.
    """

    label: str
    total: int
    step: int = 0
    stages: int = 1
    class_names: Sequence[str] = ()
    labeled: Sequence[int] = ()
    fold: bool = False
    plain: bool = False
    train: Row = field(default_factory=dict)
    evaluation: Row = field(default_factory=dict)
    best: tuple[float, int] | None = None
    started: float = field(default_factory=lambda: time.monotonic())
    speed: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=SPEED_ROWS))

    def see(self, row: Row) -> None:
        self.step = row["step"]
        if "seconds" in row:
            self.speed.append((row["step"], row["seconds"]))
        if row["event"] == "train":
            self.train = row
        elif row["event"] == "evaluate":
            self.evaluation = row
            value = self.measured()[1].get("balanced_accuracy", math.nan)
            if not math.isnan(value) and (self.best is None or value > self.best[0]):
                self.best = (value, row["step"])

    def measured(self) -> tuple[str, Row]:
        """Return the images' name and the metrics of the latest evaluation; empty if none."""
        names = ("holdout", "test") if self.fold else ("test", "holdout")
        name = next((name for name in names if self.evaluation.get(name)), None)
        return ("", {}) if name is None else (POOLS[name], self.evaluation[name])

    def seconds_left(self) -> float:
        """Return the time left at the latest speed, evaluations included; inf while unknown."""
        if len(self.speed) > 1:
            (first, begin), (last, end) = self.speed[0], self.speed[-1]
            if last > first and end > begin:
                return (self.total - self.step) * (end - begin) / (last - first)
        speed = self.train.get("steps_per_second")
        return (self.total - self.step) / speed if speed else math.inf

    def losses(self) -> list[str]:
        """Return the parts of the loss, if there are several."""
        losses = self.train.get("losses", {})
        return [f"{name} {value:.3f}" for name, value in losses.items()] if len(losses) > 1 else []

    def numbers(self) -> list[str]:
        parts = [f"loss {self.train['loss']:.3f}"] if self.train else []
        if losses := self.losses():
            parts.append(f"({' '.join(losses)})")
        if "share_confident" in self.train:
            parts.append(f"over threshold {self.train['share_confident']:.0%}")
        if measured := self.measured()[1]:
            parts.append(f"balanced accuracy {measured['balanced_accuracy']:.1%}")
        if "steps_per_second" in self.train:
            parts.append(f"{self.train['steps_per_second']:.1f} steps/s")
        return parts

    def worst(self, count: int = 3) -> list[tuple[str, float]]:
        recall = self.measured()[1].get("recall") or []
        if len(self.class_names) != len(recall) or len(recall) < 2:
            return []
        values = enumerate(map(_number, recall))
        lowest = sorted((value, k) for k, value in values if value is not None)[:count]
        return [(self.class_names[k], value) for value, k in lowest]

    def lines(self, width: int, height: int) -> list[Text]:
        """Return the view as at most *height* lines of at most *width* cells."""
        head = [self._title(width), self._progress(width)]
        lines = [*head, *self._state_lines()][:height] if height > 1 else head[1:]
        room, classes = height - len(lines), len(self.class_names)
        if classes and room >= 4:
            rows = self._class_rows(width) if classes + 2 <= room else self._class_columns(width)
            lines += [Text(), *rows][:room]
        for line in lines:
            line.truncate(width, overflow="crop" if self.plain else "ellipsis")
        return lines

    def _title(self, width: int) -> Text:
        latest = max(self.train, self.evaluation, key=lambda row: row.get("step", 0))
        right = f"{duration(time.monotonic() - self.started)} so far"
        if self.stages > 1:
            right = f"stage {int(latest.get('stage', 0)) + 1} of {self.stages}  {right}"
        left = set_cell_size(self.label, max(0, min(cell_len(self.label), width - len(right) - 2)))
        space = " " * max(2, width - cell_len(left) - len(right))
        return Text.assemble((left, "bold"), space, (right, "dim"))

    def _progress(self, width: int) -> Text:
        words = f" {self.step:,}/{self.total:,}"
        if self.train:
            speed = self.train["steps_per_second"]
            words += f"  {speed:.1f} steps/s  {duration(self.seconds_left())} left"
        room = max(0, width - len(words))
        filled = round(self.step / max(1, self.total) * room)
        full, rest = ("#", ".") if self.plain else ("━", "─")
        return Text.assemble((full * filled, "green"), (rest * (room - filled), "dim"), words)

    def _state_lines(self) -> list[Text]:
        lines = []
        if self.train:
            parts = "".join(f"  {part}" for part in self.losses())
            loss = f"{self.train['loss']:.3f}"
            lines.append(Text.assemble("loss ", (loss, "bold"), (parts, "dim")))
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
        if worst := self.worst():
            names = (
                f"{set_cell_size(name, min(cell_len(name), NAME_WIDTH))} {value:.0%}"
                for name, value in worst
            )
            lines.append(Text(f"worst recall: {', '.join(names)}"))
        return lines

    def _class_numbers(self) -> tuple[list[int], dict[str, list[float | None]]]:
        order = sorted(range(len(self.labeled)), key=lambda k: -self.labeled[k])
        total = max(1, sum(self.labeled))
        pseudo_labels = self.evaluation.get("pseudo_labels", {})
        final = pseudo_labels.get("final", {})
        numbers: dict[str, Sequence[float | None] | None] = {
            "labeled": [count / total for count in self.labeled],
            "pseudo-labels": final.get("distribution"),
            "truth*": final.get("truth"),
            "recall": self.measured()[1].get("recall"),
        }
        confident = pseudo_labels.get("confident", {}).get("distribution")
        if confident is not None:
            share = pseudo_labels.get("share_confident", 0.0)
            numbers["used"] = [
                share * part / whole if whole else 0.0
                for part, whole in zip(confident, final["distribution"], strict=True)
            ]
        known = {name: values for name, values in numbers.items() if values is not None}
        return order, {name: [_number(values[k]) for k in order] for name, values in known.items()}

    def _class_rows(self, width: int) -> list[Text]:
        order, numbers = self._class_numbers()
        bars: list[str] = [title for title in ("labeled", "pseudo-labels") if title in numbers]
        shown: list[str] = [title for title in ("truth*", "used", "recall") if title in numbers]
        names = max(5, min(NAME_WIDTH, max(map(cell_len, self.class_names))))
        while shown and width - names - 2 - 8 * len(shown) < 15 * len(bars):
            shown.pop(0)
        size = max(3, min(30, (width - names - 2 - 8 * len(shown)) // len(bars) - 8))
        top = max(value or 0.0 for title in bars for value in numbers[title]) or 1.0
        head = set_cell_size("class", names + 2) + "".join(f"{t:<{size + 8}}" for t in bars)
        lines = [Text(head + "".join(f"{title:>8}" for title in shown), "dim")]
        for place, k in enumerate(order):
            line = Text(set_cell_size(self.class_names[k], names) + "  ")
            for title, style in zip(bars, ("bright_black", "green"), strict=False):
                share = numbers[title][place] or 0.0
                drawn = f"{bar(share / top, size, self.plain)} {share:.1%}"
                line.append(f"{drawn:<{size + 8}}", style)
            for title in shown:
                value = numbers[title][place]
                style = "yellow" if title == "used" and not value else ""
                line.append(f"{'-' if value is None else f'{value:.1%}':>8}", style)
            lines.append(line)
        notes = {"used": "used: share over the threshold", "truth*": "* hidden from the training"}
        return [*lines, Text("; ".join(notes[t] for t in notes if t in shown), "dim")]

    def _class_columns(self, width: int) -> list[Text]:
        order, numbers = self._class_numbers()
        count, room = len(order), max(1, width - NAME_WIDTH)
        size = math.ceil(count / room)
        shares = [title for title in ("labeled", "pseudo-labels", "truth*") if title in numbers]
        top = max(value or 0.0 for title in shares for value in numbers[title]) or 1.0
        styles = {"labeled": "bright_black", "pseudo-labels": "green", "recall": "cyan"}
        lines = []
        for title in (*shares, *(["recall"] if "recall" in numbers else [])):
            values = [value or 0.0 for value in numbers[title]]
            drawn = columns(values, 1.0 if title == "recall" else top, room, self.plain)
            lines.append(Text.assemble(f"{title:<{NAME_WIDTH}}", (drawn, styles.get(title, ""))))
        note = f"{count} classes" + (f", {size} per column" if size > 1 else "")
        note += ", most labels first; height: square root"
        note += "; * hidden from the training" if "truth*" in numbers else ""
        return [*lines, Text(note, "dim")]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(options.max_width, max(1, console.height - 1))
