"""The map of the embedding as an SVG whose colours the reader can choose."""

from __future__ import annotations

from markupsafe import Markup, escape

from daso.files import Row
from daso.report.html.run import Run
from daso.report.tsne import HEIGHT, MARK, WIDTH, place, place_names

FREQUENT, MIDDLE, RARE = (0, 114, 178), (120, 120, 120), (213, 94, 0)
NAMED_ON_MAP = 40


def frequency_color(rank: int, count: int) -> str:
    """Return the colour of a class by its rank in frequency: blue the most frequent, grey, orange the rarest."""
    at = rank / max(count - 1, 1)
    first, second, share = (FREQUENT, MIDDLE, 2 * at) if at < 0.5 else (MIDDLE, RARE, 2 * at - 1)
    return "#" + "".join(
        f"{round(a + (b - a) * share):02x}" for a, b in zip(first, second, strict=True)
    )


def feature_map(run: Run) -> Row | None:
    """Return a map of unlabelled and labelled images with the prototypes."""
    names = run.class_names
    found = place(run.arrays, len(names))
    if found is None:
        return None
    final, truth, label = found.final.tolist(), found.truth.tolist(), found.label.tolist()
    linear, semantic = found.linear.tolist(), found.semantic.tolist()
    rank = {k: at for at, k in enumerate(run.order)}
    colors = [frequency_color(rank[k], len(names)) for k in range(len(names))]
    body = []
    for (x, y), k, t, a, b in zip(found.unlabeled, final, truth, linear, semantic, strict=True):
        said = f"{names[k]}" + (f"; classifier {names[a]}, looks like {names[b]}" if a != b else "")
        said += f"; truth {names[t]}" if t >= 0 else ""
        body.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colors[k]}"><title>{escape(said)}</title></circle>'
        )
    squares = []
    for (x, y), k in zip(found.labeled, label, strict=True):
        squares.append(
            f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{colors[k]}">'
            f"<title>labelled {escape(names[k])}</title></rect>"
        )
    marks = []
    for (x, y), k in zip(found.prototypes, range(len(names)), strict=True):
        diamond = f"M{x:.1f} {y - MARK:.1f}l{MARK} {MARK}-{MARK} {MARK}-{MARK}-{MARK}z"
        title = f"<title>prototype of {escape(names[k])}</title>"
        marks.append(f'<path d="{diamond}" fill="{colors[k]}">{title}</path>')
    if len(names) <= NAMED_ON_MAP:
        shown = [name if len(name) <= 24 else name[:23] + "…" for name in names]
        for (x, y, style), name in zip(place_names(found.prototypes, shown), shown, strict=True):
            marks.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(name)}</text>')
    said = f"Map of {len(final):,} unlabelled images, {len(label)} labelled ones and the prototypes"
    drawn = Markup(
        f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">'
        f'<g class="points">{"".join(body)}</g><g class="squares">{"".join(squares)}</g>'
        f'<g class="prototypes">{"".join(marks)}</g></svg>'
    )
    return {
        "chart": drawn,
        "images": len(final),
        "labeled": len(label),
        "known": any(t >= 0 for t in truth),
        "low": frequency_color(0, len(names)),
        "middle": frequency_color(len(names) // 2, len(names)),
        "high": frequency_color(len(names) - 1, len(names)),
        "classes": [(k, names[k]) for k in run.order],
        "island": {
            "final": final,
            "truth": truth,
            "linear": linear,
            "semantic": semantic,
            "label": label,
            "colors": colors,
        },
    }
