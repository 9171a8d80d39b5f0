"""What changed during the training: accuracy, losses, pseudo-labels, blending weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from daso.files import Row
from daso.report.html import charts, svg
from daso.report.html.run import Array, Run, at, number, vector

PARTS = ("linear", "semantic", "final")
LOSS_STYLES = ("labeled", "linear", "semantic", "adjusted", "truth")
PICKED_POINTS = 60
"""Of a curve that can be picked for every class, at most."""
MOST_PICKED = 150_000
"""Points of all curves to be picked: with many classes each has fewer."""
GROUPS = {"few": "rarest third", "medium": "middle third", "many": "most frequent third"}
LEAST_SHARE = 1e-4


def series(run: Run, name: str, style: str, event: str, *path: str) -> svg.Series | None:
    """Return the numbers at *path* of the rows of an event over the steps; None without any."""
    found = [(row["step"], number(at(row, *path))) for row in run.rows if row["event"] == event]
    values = [(step, value) for step, value in found if value is not None]
    if not values:
        return None
    steps, numbers = np.array(values, dtype=float).T
    return svg.Series(name, style, steps, numbers)


def stage_starts(run: Run) -> list[float]:
    """Return the steps after which a further stage of the run began."""
    starts, before = [], 0
    for earlier, row in zip(run.rows, run.rows[1:], strict=False):
        stage = number(row.get("stage")) or 0
        if stage > before:
            starts.append(float(earlier["step"]))
            before = int(stage)
    return starts


def training(run: Run) -> Row | None:
    """Return the curves of accuracy, losses, share of pseudo-labels that teach, and learning rate."""
    marks = stage_starts(run)
    drawings: list[Row] = []

    def chart(
        title: str, curves: Sequence[svg.Series | None], note: str = "", **options: Any
    ) -> None:
        there = [curve for curve in curves if curve is not None]
        if there and (drawn := svg.line_chart(title, there, marks=marks, **options)):
            drawings.append({"title": title, "series": there, "chart": drawn, "note": note})

    chart(
        "Balanced accuracy",
        [
            series(run, "test", "final", "evaluate", "test", "balanced_accuracy"),
            None
            if run.balanced_by
            else series(
                run,
                "test, logit-adjusted",
                "adjusted",
                "evaluate",
                "test",
                "logit_adjusted",
                "balanced_accuracy",
            ),
            series(run, "hold-out", "labeled", "evaluate", "holdout", "balanced_accuracy"),
        ],
        note="of the moving-average network",
    )
    part = run.measured_on or "test"
    chart(
        "Recall by frequency of the class",
        [
            series(run, name, style, "evaluate", part, f"recall_{group}")
            for group, name, style in (
                ("many", "most frequent third", "labeled"),
                ("medium", "middle third", "semantic"),
                ("few", "rarest third", "linear"),
            )
        ],
        high=1.0,
    )
    names: list[str] = []
    for row in run.rows:
        losses = row.get("losses")
        names += [name for name in losses if name not in names] if isinstance(losses, dict) else []
    shown = names[: len(LOSS_STYLES)]
    chart(
        "Losses",
        [
            series(run, name, style, "train", "losses", name)
            for name, style in zip(shown, LOSS_STYLES, strict=False)
        ],
        note="weighted as they are summed"
        + (f"; {len(names) - len(shown)} more are left out" if len(names) > len(shown) else ""),
        percent=False,
    )
    chart(
        "Pseudo-labels",
        [
            series(
                run, "share that teach", "labeled", "evaluate", "pseudo_labels", "share_confident"
            ),
            series(run, "right, of all", "final", "evaluate", "pseudo_labels", "final", "accuracy"),
            series(
                run,
                "right, of those that teach",
                "semantic",
                "evaluate",
                "pseudo_labels",
                "confident",
                "accuracy",
            ),
        ],
        high=1.0,
    )
    rate = series(run, "learning rate", "truth", "train", "learning_rate")
    if rate is not None and len(np.unique(rate.y)) > 1:
        chart("Learning rate", [rate], percent=False)
    return {"charts": drawings} if drawings else None


def part_over_time(run: Run, part: str, what: str) -> tuple[Array, Array] | None:
    """Return steps (T,) and a number per class (T, K) of a part of the pseudo-labels."""
    found = [
        (row["step"], values)
        for row in run.evaluations
        if (values := vector(at(row, "pseudo_labels", part, what), run.num_classes)) is not None
    ]
    if not found:
        return None
    return np.array([step for step, _ in found], dtype=float), np.array(
        [values for _, values in found]
    )


def _thinned(steps: Array, values: Array) -> tuple[Array, Array]:
    most = min(PICKED_POINTS, max(8, MOST_PICKED // (11 * values.shape[1])))
    if len(steps) <= most:
        return steps, values
    kept = np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))
    return steps[kept], values[kept]


def _mean(values: Array) -> Array:
    """Return the mean over the second axis of what is not NaN."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)


def pseudo_labels(run: Run) -> Row | None:
    """Return shares, recall and precision of linear, semantic and final pseudo-labels, by class and over time.

    The curves of every class and of the thirds are path data, for the reader to pick from.
    """
    shares = {part: found for part in PARTS if (found := part_over_time(run, part, "distribution"))}
    if not shares:
        return None
    truth = part_over_time(run, "final", "truth")
    picks = [
        (f"group:{name}", f"{said} of the classes", run.groups[name])
        for name, said in GROUPS.items()
    ]
    picks = [pick for pick in picks if pick[2]] + [
        (str(k), run.class_names[k], [k]) for k in run.order
    ]
    steps = next(iter(shares.values()))[0]
    x = svg.Scale(0.0, float(steps.max()) or 1.0, svg.LEFT, svg.WIDTH - svg.RIGHT)
    low, high = svg.HEIGHT - svg.BOTTOM, svg.TOP
    smallest = min(float(v[v > 0].min(initial=1)) for _, v in shares.values())
    log_scale = svg.Scale(max(LEAST_SHARE, min(smallest, 0.01)), 1.0, low, high, log=True)
    unit = svg.Scale(0, 1, low, high)
    drawings: list[Row] = []
    paths: dict[str, list[list[str]]] = {key: [] for key, _, _ in picks}

    def add(
        title: str, note: str, y: svg.Scale, curves: list[tuple[str, str, tuple[Array, Array], str]]
    ) -> None:
        thinned = [(name, style, *_thinned(*found), how) for name, style, found, how in curves]
        for key, _, members in picks:
            lines = []
            for _, _, at_steps, values, how in thinned:
                picked = values[:, members].sum(1) if how == "sum" else _mean(values[:, members])
                lines.append(svg.path_of(x, y, at_steps, picked))
            paths[key].append(lines)
        body = svg.axes(x, y, "step", "", percent=True)
        for (name, style, *_), line in zip(thinned, paths[picks[0][0]][-1], strict=True):
            body += f'<path class="line {style}" d="{line}"><title>{name}</title></path>'
        chart = svg.frame(body, title, note, extra=f'data-picked="{len(drawings)}"')
        drawings.append(
            {
                "title": title,
                "note": note,
                "chart": chart,
                "series": [(n, s) for n, s, *_ in thinned],
            }
        )

    share_curves = [(part, part, found, "sum") for part, found in shares.items()]
    labeled = run.labeled_counts
    if truth is not None:
        share_curves.append(("truth", "truth", truth, "sum"))
    elif labeled is not None:
        flat = np.tile(labeled / max(labeled.sum(), 1), (len(steps), 1))
        share_curves.append(("labelled images", "truth", (steps, flat), "sum"))
    add("Share of the pseudo-labels", "logarithmic", log_scale, share_curves)
    for what in ("recall", "precision"):
        measured = [
            (p, p, v, "mean") for p in PARTS if (v := part_over_time(run, p, what)) is not None
        ]
        if measured:
            add(f"{what.capitalize()} of the pseudo-labels", "against the truth", unit, measured)
    weights = [
        (row["step"], values)
        for row in run.evaluations
        if (values := vector(at(row, "pseudo_labels", "blend_weight"), run.num_classes)) is not None
    ]
    if weights:
        over = np.array([s for s, _ in weights], dtype=float), np.array([v for _, v in weights])
        add(
            "Blending weight",
            "0: linear alone, 1: prototypes alone",
            unit,
            [("weight", "semantic", over, "mean")],
        )
    return {
        "charts": drawings,
        "picks": [(key, name) for key, name, _ in picks],
        "heat": _heat(run, shares, truth),
        "known": truth is not None,
        "blend": _blend(run, *weights[-1]) if weights else None,
        "agreement": agreement(run),
        "island": {"paths": paths},
    }


def _heat(
    run: Run, shares: dict[str, tuple[Array, Array]], truth: tuple[Array, Array] | None
) -> list[Row]:
    """Return a picture per part of its shares over those of the truth, or of the labelled images."""
    result = []
    labeled = run.labeled_counts
    for part, (steps, share) in shares.items():
        if truth is not None and len(truth[0]) == len(steps):
            wanted = truth[1]
        elif labeled is not None:
            wanted = np.tile(labeled / max(labeled.sum(), 1), (len(steps), 1))
        else:
            return []
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(wanted > 0, share / wanted, np.nan)
        thin_steps, thin_ratio = _thinned(steps, ratio)
        names = [run.class_names[k] for k in run.order]
        drawn = charts.heat(
            f"Share of the {part} pseudo-labels over time",
            names,
            thin_steps,
            thin_ratio[:, run.order],
        )
        result.append({"part": part, "chart": drawn})
    return result


def _blend(run: Run, step: int, weights: Array) -> Row:
    names = [run.class_names[k] for k in run.order]
    chart = charts.bars(
        "Blending weight per class", names, [""] * len(names), weights[run.order], "semantic"
    )
    return {"chart": chart, "when": "at the end" if run.summary else f"at step {step:,}"}


def agreement(run: Run) -> Row | None:
    """Return how often classifier and similarity agree on the unlabelled images, in all and by class."""
    linear, semantic = run.arrays.get("pool.linear"), run.arrays.get("pool.semantic")
    if linear is None or semantic is None or not len(linear):
        return None
    first, second = linear[:, 0], semantic[:, 0]
    same = first == second
    rows = []
    for k in run.order:
        mine = first == k
        if not mine.any():
            rows.append({"name": run.class_names[k], "count": 0, "share": None, "instead": ""})
            continue
        others = np.bincount(second[mine & ~same], minlength=run.num_classes)
        instead = run.class_names[int(others.argmax())] if others.max() > 0 else ""
        share = float(same[mine].mean())
        rows.append(
            {
                "name": run.class_names[k],
                "count": int(mine.sum()),
                "share": share,
                "instead": instead,
            }
        )
    share = float(same.mean())
    assert math.isfinite(share)
    return {"share": share, "images": len(linear), "rows": rows, "when": run.seen_at}
