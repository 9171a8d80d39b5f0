"""Section: the map of the features as an SVG whose colors the reader can choose."""

from __future__ import annotations

from markupsafe import Markup, escape

from daso.files import Row
from daso.report.html.run import Run
from daso.report.tsne import HEIGHT, MARK, NAME_LENGTH, WIDTH, place, place_names
from daso.report.wording import shortened

FREQUENT, MIDDLE, RARE = (0, 114, 178), (120, 120, 120), (213, 94, 0)
MOST_NAMES = 40


def frequency_color(rank: int, count: int) -> str:
    """Return a color by rank in frequency: blue the most frequent, gray, orange the rarest."""
    at = rank / max(count - 1, 1)
    first, second, share = (FREQUENT, MIDDLE, 2 * at) if at < 0.5 else (MIDDLE, RARE, 2 * at - 1)
    mixed = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def feature_map(run: Run) -> Row | None:
    """Return a map of unlabeled images, labeled images and prototypes."""
    names = run.class_names
    placed = place(run.arrays, len(names))
    if placed is None:
        return None
    ranks = {k: rank for rank, k in enumerate(run.order)}
    colors = [frequency_color(ranks[k], len(names)) for k in range(len(names))]
    island = {
        name: getattr(placed, name).tolist()
        for name in ("final", "truth", "linear", "semantic", "label")
    }
    dots, squares, marks = [], [], []
    pseudo_labels = zip(*(island[n] for n in ("final", "truth", "linear", "semantic")), strict=True)
    for (x, y), (final, truth, linear, semantic) in zip(
        placed.unlabeled, pseudo_labels, strict=True
    ):
        title = names[final]
        if linear != semantic:
            title += f"; classifier {names[linear]}, looks like {names[semantic]}"
        title += f"; truth {names[truth]}" if truth >= 0 else ""
        circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colors[final]}">'
        dots.append(f"{circle}<title>{escape(title)}</title></circle>")
    for (x, y), k in zip(placed.labeled, island["label"], strict=True):
        place_of = f'x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"'
        title = f"<title>labeled {escape(names[k])}</title>"
        squares.append(f'<rect {place_of} fill="{colors[k]}">{title}</rect>')
    for (x, y), name, color in zip(placed.prototypes, names, colors, strict=True):
        diamond = f"M{x:.1f} {y - MARK:.1f}l{MARK} {MARK}-{MARK} {MARK}-{MARK}-{MARK}z"
        title = f"<title>prototype of {escape(name)}</title>"
        marks.append(f'<path d="{diamond}" fill="{color}">{title}</path>')
    if len(names) <= MOST_NAMES:
        shown = [shortened(name, NAME_LENGTH) for name in names]
        for (x, y, style), name in zip(place_names(placed.prototypes, shown), shown, strict=True):
            marks.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(name)}</text>')
    images, labeled = len(dots), len(squares)
    drawing = Markup(
        f'<svg class="map" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Map of '
        f'{images:,} unlabeled images, {labeled} labeled images and the prototypes">'
        f'<g class="points">{"".join(dots)}</g><g class="squares">{"".join(squares)}</g>'
        f'<g class="prototypes">{"".join(marks)}</g></svg>'
    )
    count = len(names)
    return {
        "drawing": drawing,
        "images": images,
        "labeled": labeled,
        "known": any(t >= 0 for t in island["truth"]),
        "swatches": {
            "frequent": frequency_color(0, count),
            "middle": frequency_color(count // 2, count),
            "rare classes": frequency_color(count - 1, count),
        },
        "classes": [(k, names[k]) for k in run.order],
        "island": {**island, "colors": colors},
    }
