"""Sections on the training: curves over time, and pseudo-labels by class."""

from __future__ import annotations

import numpy as np

from daso.files import Row
from daso.report import charts
from daso.report.charts import PARTS
from daso.report.html import diagrams, svg
from daso.report.html.run import Run
from daso.report.runs import Array, mean_known

PICKED_POINTS = 60
"""Most points of a curve that can be picked for each class."""
MOST_PICKED = 150_000
"""Most points of all these curves; with many classes each has fewer."""
GROUPS = {"few": "rarest third", "medium": "middle third", "many": "most frequent third"}
LEAST_SHARE = 1e-4

Curve = tuple[Array, Array]
"""Steps (T,) and numbers per class (T, K)."""


def training(run: Run) -> Row | None:
    """Return the curves of a training."""
    figures = [svg.figure(chart) for chart in charts.training(run)]
    return {"charts": figures} if figures else None


def _thinned(steps: Array, values: Array) -> Curve:
    most = min(PICKED_POINTS, max(8, MOST_PICKED // (11 * values.shape[1])))
    if len(steps) <= most:
        return steps, values
    kept = np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))
    return steps[kept], values[kept]


def pseudo_labels(run: Run) -> Row | None:
    """Return linear, semantic and final pseudo-labels, by class and over time.

    The curves of each class and of the thirds are path data, from which the reader picks.
    """
    shares = _curves(run, "distribution")
    if not shares:
        return None
    truth = _curves(run, "truth").get("final")
    weights = run.classes_over_time("pseudo_labels", "blend_weight")
    steps = next(iter(shares.values()))[0]
    expected, expected_name = truth, "truth"
    if truth is None and run.labeled_counts is not None:
        share = run.labeled_counts / max(run.labeled_counts.sum(), 1)
        expected, expected_name = (steps, np.tile(share, (len(steps), 1))), "labeled images"
    picks = {
        f"group:{name}": (f"{words} of the classes", run.groups[name])
        for name, words in GROUPS.items()
        if run.groups[name]
    } | {str(k): (run.class_names[k], [k]) for k in run.order}
    picker = _Picker(float(steps.max()) or 1.0, picks)
    smallest = min(float(v[v > 0].min(initial=1)) for _, v in shares.values())
    reference = {} if expected is None else {expected_name: expected}
    lowest = max(LEAST_SHARE, min(smallest, 0.01))
    picker.add("Share of the pseudo-labels", "Logarithmic.", shares | reference, lowest)
    for what in ("recall", "precision"):
        if measured := _curves(run, what):
            picker.add(f"{what.capitalize()} of the pseudo-labels", "Against the truth.", measured)
    if len(weights[0]):
        note = "0: classifier alone; 1: prototypes alone."
        picker.add("Blending weight", note, {"weight": weights}, percent=False)
    blend = charts.blending_weight(run)
    return {
        "charts": picker.figures,
        "picks": [(key, name) for key, (name, _) in picks.items()],
        "heat": _heat(run, shares, expected),
        "known": truth is not None,
        "blend": blend and svg.figure(blend),
        "agreement": agreement(run),
        "island": {"paths": picker.paths},
    }


def _curves(run: Run, what: str) -> dict[str, Curve]:
    curves = {part: run.classes_over_time("pseudo_labels", part, what) for part in PARTS}
    return {part: curve for part, curve in curves.items() if len(curve[0])}


class _Picker:
    """Charts whose curves are drawn for one class, or for some, at a time.

    Attributes:
        figures: the charts, with the curves of the first pick.
        paths: of each pick, the path data of each curve of each chart.
    """

    def __init__(self, last: float, picks: dict[str, tuple[str, list[int]]]) -> None:
        self.picks = picks
        self.figures: list[Row] = []
        self.paths: dict[str, list[list[str]]] = {key: [] for key in picks}
        self._x = svg.Scale(0.0, last, svg.LEFT, svg.RIGHT_END)

    def add(
        self,
        title: str,
        note: str,
        curves: dict[str, Curve],
        lowest: float = 0.0,
        *,
        percent: bool = True,
    ) -> None:
        """Add a chart; shares are summed over a third and logarithmic, other numbers averaged."""
        log = lowest > 0
        y = svg.Scale(lowest, 1, svg.HEIGHT - svg.BOTTOM, svg.TOP, log)
        thinned = {name: _thinned(*curve) for name, curve in curves.items()}
        for key, (_, members) in self.picks.items():
            paths = []
            for steps, values in thinned.values():
                picked = values[:, members]
                drawn_values = picked.sum(1) if log else mean_known(picked, 1)
                paths.append(svg.path_of(self._x, y, steps, drawn_values))
            self.paths[key].append(paths)
        styles = {"truth": "truth", "labeled images": "truth", "weight": "semantic"}
        series = [(name, styles.get(name, name)) for name in curves]
        body = svg.axes(self._x, y, "step", "", percent=percent)
        for (name, style), path in zip(series, self.paths[next(iter(self.picks))][-1], strict=True):
            body += f'<path class="line {style}" d="{path}"><title>{name}</title></path>'
        drawn = svg.frame(body, title, note, extra=f'data-picked="{len(self.figures)}"')
        figure = {"title": title, "note": note, "drawing": drawn, "legend": series, "dots": False}
        self.figures.append(figure)


def _heat(run: Run, shares: dict[str, Curve], expected: Curve | None) -> list[Row]:
    pictures = []
    for part, (steps, share) in shares.items():
        if expected is None or len(expected[0]) != len(steps):
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(expected[1] > 0, share / expected[1], np.nan)
        steps, ratio = _thinned(steps, ratio[:, run.order])
        names = [run.class_names[k] for k in run.order]
        title = f"Share of the {part} pseudo-labels over time"
        pictures.append({"part": part, "drawing": diagrams.heat(title, names, steps, ratio)})
    return pictures


def agreement(run: Run) -> Row | None:
    """Return how often classifier and similarity agree on the unlabeled images."""
    linear, semantic = run.arrays.get("pool.linear"), run.arrays.get("pool.semantic")
    if linear is None or semantic is None or not len(linear):
        return None
    first, second = linear[:, 0], semantic[:, 0]
    same = first == second
    rows = []
    for k in run.order:
        mine = first == k
        others = np.bincount(second[mine & ~same], minlength=run.num_classes)
        rows.append(
            {
                "name": run.class_names[k],
                "count": int(mine.sum()),
                "share": float(same[mine].mean()) if mine.any() else None,
                "instead": run.class_names[int(others.argmax())] if others.max() > 0 else "",
            }
        )
    share = float(same.mean())
    return {"share": share, "images": len(linear), "rows": rows, "when": run.believed_when}
