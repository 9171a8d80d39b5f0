"""Draw charts with Matplotlib."""

from __future__ import annotations

import functools
import io
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from daso.evaluate.reliability import reliability_bins
from daso.files import printable, reported
from daso.report import charts
from daso.report.charts import CLASSES, FEW_CLASSES, Chart, Groups, Series, confusion_shares
from daso.report.reliability import FEW_IMAGES
from daso.report.runs import Array, RunFolder, read_run
from daso.report.wording import method_label

STYLES = {
    "labeled": "#0072B2",
    "linear": "#D55E00",
    "semantic": "#0072B2",
    "final": "#009E73",
    "adjusted": "#CC79A7",
    "truth": "#E69F00",
}
"""Okabe and Ito's palette, which color-blind readers can tell apart."""
METHOD_COLORS = ("#999999", "#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9")
DASHES, HATCHES = ("-", "--", ":"), ("", "//", "..")
OTHER_SCRIPTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "PingFang SC", "Hiragino Sans", "Microsoft YaHei"),
    *("Yu Gothic", "Malgun Gothic", "WenQuanYi Micro Hei", "Arial Unicode MS"),
    *("Noto Sans Arabic", "Noto Sans Devanagari"),
)
"""Fonts for letters that Matplotlib's own font lacks, the preferred one first."""


def literal(text: str) -> str:
    """Return a text that Matplotlib draws as it is written, without formulas between ``$``."""
    text = printable(text).replace("$", r"\$")
    return f"\N{HAIR SPACE}{text}" if text.startswith("_") else text  # which a legend leaves out


@functools.cache
def fonts() -> list[str]:
    """Return Matplotlib's own font and the installed ones of ``OTHER_SCRIPTS``."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]


class Picture(Figure):
    """A figure that a notebook shows without pyplot; class names may be in any script."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw the figure; a letter that no font has is an empty box, without a warning."""
        for text in self.findobj(Text):
            text.set_fontfamily(fonts())
        layout = self.get_layout_engine()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
            if self.canvas.is_saving() and isinstance(layout, ConstrainedLayoutEngine):
                layout.execute(self)  # a figure that is saved is drawn twice, first for its layout
            else:
                super().draw(renderer)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()


def make_figure(count: int, side: tuple[float, float] = (6.0, 3.8)) -> tuple[Figure, list[Axes]]:
    """Return a figure of *count* axes, two to a row, each of some inches."""
    columns, rows = min(count, 2), (count + 1) // 2
    figure = Picture(figsize=(side[0] * columns, side[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, number + 1) for number in range(count)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw(*drawn: Chart) -> Figure:
    """Return a figure of charts."""
    figure, axes = make_figure(len(drawn))
    for axis, chart in zip(axes, drawn, strict=True):
        _draw_chart(axis, chart)
    return figure


def _draw_chart(axis: Axes, chart: Chart) -> None:
    scale = 100 if chart.percent else 1
    plot = _bars if chart.kind == "classes" and len(chart.names) <= FEW_CLASSES else _lines
    for place, series in enumerate(chart.series):
        if len(series.x):
            plot(axis, chart, series, place, scale)
    if chart.reference is not None:
        axis.axhline(scale * chart.reference, color="black", linewidth=0.8, linestyle=":")
    if chart.log:
        axis.set_yscale("log")
        axis.set_ylim(0.7, 3 * axis.get_ylim()[1])
    elif chart.high is None:
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]) if chart.reference is None else 0)
    else:
        axis.set_ylim(0, scale * chart.high)
    axis.set_xlabel(chart.x_label)
    axis.set_ylabel(f"{chart.y_label}, %" if chart.percent else chart.y_label)
    axis.set_title(literal(chart.title), loc="left")
    if chart.kind == "classes":
        axis.set_xlim(-0.6, len(chart.names) - 0.4)
        if len(chart.names) <= FEW_CLASSES:
            places = range(len(chart.names))
            axis.set_xticks(
                places, [*map(literal, chart.names)], rotation=45, ha="right", fontsize=8
            )
    _legend(axis, chart, scale)


def _legend(axis: Axes, chart: Chart, scale: float) -> None:
    """Draw the legend, above the bars or up to 100% if they would hide it."""
    handles, names = axis.get_legend_handles_labels()
    if not handles:
        return
    if chart.kind != "classes":
        axis.legend(frameon=False)
        return
    columns = max(1, min(3, 60 // (4 + max(map(len, names)))))
    if chart.high is not None:
        rows = math.ceil(len(names) / columns)
        axis.set_ylim(0, scale * chart.high * (1.09 + 0.16 * rows))
        axis.set_yticks(np.linspace(0, scale * chart.high, 6))
    axis.legend(frameon=False, loc="upper right", ncols=columns)


def _look(series: Series, place: int) -> tuple[str, int]:
    """Return the color of a series, and the number of its dashes or hatches."""
    if series.style:
        return STYLES[series.style], 0
    turn = place // len(METHOD_COLORS) % len(DASHES)
    return METHOD_COLORS[place % len(METHOD_COLORS)], turn


def _bars(axis: Axes, chart: Chart, series: Series, place: int, scale: float) -> None:
    width = 0.8 / len(chart.series)
    color, turn = _look(series, place)
    axis.bar(
        series.x + (place - (len(chart.series) - 1) / 2) * width,
        scale * series.y,
        width,
        yerr=None if series.spread is None else scale * series.spread,
        color=color,
        hatch=HATCHES[turn],
        label=literal(series.name),
        error_kw={"ecolor": "#333333", "elinewidth": 0.8},
    )


def _lines(axis: Axes, chart: Chart, series: Series, place: int, scale: float) -> None:
    color, turn = _look(series, place)
    # Curves that coincide stay visible: the first one is wider.
    width = 3.0 if series.style == "linear" else 1.5
    dash, y = DASHES[turn], scale * series.y
    axis.plot(series.x, y, color=color, linestyle=dash, label=literal(series.name), linewidth=width)
    if series.spread is not None:
        spread = scale * series.spread
        axis.fill_between(series.x, y - spread, y + spread, color=color, alpha=0.2, linewidth=0)


def draw_confusions(groups: Groups) -> Figure:
    """Return the mean confusion matrix of each group of runs."""
    figure, axes = make_figure(len(groups), (5.5, 5.5))
    for axis, (name, runs) in zip(axes, groups.items(), strict=True):
        order, names = runs[0].order, runs[0].class_names
        counted = [shares for shares in map(confusion_shares, runs) if shares is not None]
        mean = np.mean(counted, axis=0)[np.ix_(order, order)]
        axis.imshow(mean, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axis.set_title(
            f"{literal(name)}: mean recall {100 * np.diag(mean).mean():.1f}%", loc="left"
        )
        axis.set(xlabel="answer", ylabel=CLASSES)
        if len(order) > FEW_CLASSES:
            continue
        ticks = [literal(names[k]) for k in order]
        axis.set_xticks(range(len(order)), ticks, rotation=45, ha="right", fontsize=7)
        axis.set_yticks(range(len(order)), ticks, fontsize=7)
        for row, column in itertools.product(range(len(order)), repeat=2):
            if (share := mean[row, column]) >= 0.005:
                color = "white" if share > 0.5 else "black"
                text = axis.text(column, row, f"{share:.2f}", color=color, fontsize=6)
                text.set(ha="center", va="center")
    return figure


def draw_blending_weights(run: RunFolder, steps: Array, weights: Array) -> Figure:
    """Return the blending weights (T, K) of a run at its steps (T,)."""
    figure, (axis,) = make_figure(1)
    order = run.order
    edges = [0, *steps] if steps[0] > 0 else [*steps, steps[-1] + 1]
    rows = np.arange(len(order) + 1) - 0.5
    mesh = axis.pcolormesh(edges, rows, weights[:, order].T, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(mesh, ax=axis, label="weight of the prototypes")
    axis.invert_yaxis()
    axis.set(xlabel="step", ylabel=CLASSES)
    axis.set_title("Weight of the prototypes per class", loc="left")
    if len(order) <= FEW_CLASSES:
        axis.set_yticks(range(len(order)), [literal(run.class_names[k]) for k in order], fontsize=8)
    return figure


def draw_reliability(name: str, answers: Sequence[tuple[Array, Array]]) -> Figure:
    """Return accuracy against confidence of the answers of all runs, and images per bin."""
    figure, (above, below) = make_figure(2)
    figure.set_size_inches(6, 5)
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 1))
    for row, axis in enumerate((above, below)):
        axis.set_subplotspec(grid[row, 0])
    above.sharex(below)
    above.tick_params(labelbottom=False)
    pooled, correct = (np.concatenate(part) for part in zip(*answers, strict=True))
    bins = reliability_bins(pooled, correct)
    middle, width = 50 * (bins.edges[:-1] + bins.edges[1:]), 90 / len(bins.counts)
    accuracy, confidence = 100 * bins.accuracy, 100 * bins.confidence
    many = bins.counts >= FEW_IMAGES
    for there, alpha in ((many, 1.0), (~many & (bins.counts > 0), 0.35)):
        above.bar(middle[there], accuracy[there], width, color=STYLES["final"], alpha=alpha)
        ends = accuracy[there], confidence[there]
        above.vlines(middle[there], *ends, colors="black", alpha=alpha)
    above.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle=":")
    # Pooled, the gaps of two runs could cancel out.
    errors = [reliability_bins(*answer).error for answer in answers]
    spread = f" ± {100 * np.std(errors, ddof=1):.1f}" if len(errors) > 1 else ""
    above.set_title(
        f"{literal(name)}: calibration error {100 * np.mean(errors):.1f}{spread}%", loc="left"
    )
    above.set(ylabel="accuracy, %", ylim=(0, 100))
    below.bar(middle, bins.counts / len(answers), width, color="#555555")
    below.set(ylabel="images", xlabel="confidence, %", xlim=(0, 100))
    return figure


def _save(folder: Path, pictures: Mapping[str, Callable[[], Figure]]) -> list[Path]:
    paths = []
    with reported(f"write into {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            paths.append(folder / f"{name}.png")
            picture().savefig(paths[-1], dpi=130)
    return paths


def draw_run(folder: Path) -> list[Path]:
    """Draw the pictures of a run, as far as it has numbers, into its ``plots`` folder.

    Raises:
        RunError: the path is not a run folder, or nothing can be written.
    """
    run = read_run(folder)
    groups = {method_label(run.method): [run]}
    pictures = {
        "classes": charts.class_counts(run),
        "training": charts.accuracy(groups),
        "recall": charts.recall(groups),
        "pseudo_labels": charts.pseudo_label_bias([run]),
    }
    drawn = {name: partial(draw, chart) for name, chart in pictures.items() if chart is not None}
    return _save(folder / "plots", drawn)


def draw_comparison(groups: Groups, path: Path) -> None:
    """Draw class counts, recall per class and pseudo-label bias of groups into one PNG file."""
    first = next(iter(groups.values()))[0]
    biases = [chart for runs in groups.values() if (chart := charts.pseudo_label_bias(runs))]
    drawn = (charts.class_counts(first), charts.recall(groups), *biases)
    figure = draw(*(chart for chart in drawn if chart is not None))
    compared = figure.axes[-len(biases) :] if biases else []
    for axis in compared:
        axis.set_ylim(0, max(other.get_ylim()[1] for other in compared))
    figure.savefig(path, dpi=110)


def draw_figures(guessing: Groups, answering: Groups, stem: Path) -> list[Path]:
    """Draw the paper's figures; return the paths of the files written.

    Args:
        guessing: runs by method, to compare by their pseudo-labels and over time.
        answering: runs by method, to compare by their answers on test images.
        stem: begins the paths: ``STEM-pseudo-labels.png``, ``-confusion.png``, ``-accuracy.png``.

    Raises:
        RunError: a run is damaged, or nothing can be written.
    """
    pictures: dict[str, Callable[[], Figure]] = {}
    quality = [charts.pseudo_labels_by_class(guessing, what) for what in ("recall", "precision")]
    if known := [chart for chart in quality if chart is not None]:
        pictures["pseudo-labels"] = partial(draw, *known)
    counted = {
        name: runs
        for name, runs in answering.items()
        if any(confusion_shares(run) is not None for run in runs)
    }
    if counted:
        pictures["confusion"] = partial(draw_confusions, counted)
    if (curves := charts.accuracy(guessing)) is not None:
        pictures["accuracy"] = partial(draw, curves)
    named = {f"{stem.name}-{name}": picture for name, picture in pictures.items()}
    return _save(stem.parent, named)
