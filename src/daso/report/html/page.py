"""Write the report of a run: sections from its folder, put into the templates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from daso.files import Row, flatten, make_folder, write_atomically, write_text
from daso.report.html import calibration, classes, curves, feature_map, overview, pictures
from daso.report.html.run import UNREADABLE, Run, load_run
from daso.report.html.template import island, render_page
from daso.report.runs import at, number

MOST_ITEMS = 20
SMALL_SIDE = 32
"""Images of at most this many pixels a side are shown with visible pixels."""


def about(run: Run) -> Row:
    """Return configuration, data and environment as lists of names and values."""
    groups = {"Configuration": run.config, "Data": run.data, "Environment": run.environment}
    return {
        "groups": {
            title: lines
            for title, values in groups.items()
            if (lines := [(k, v) for k, item in flatten(values).items() if (v := _text(item))])
        }
    }


def _text(value: object) -> str:
    if not isinstance(value, list):
        return "" if value is None else str(value)
    more = f" … ({len(value)})" if len(value) > MOST_ITEMS else ""
    return ", ".join(map(str, value[:MOST_ITEMS])) + more


Section = tuple[str, str, Callable[[Run], Row | None]]
SECTIONS: tuple[Section, ...] = (
    ("overview", "Summary", overview.overview),
    ("classes", "Classes", classes.classes),
    ("pseudo_labels", "Pseudo-labels", curves.pseudo_labels),
    ("galleries", "Images", pictures.galleries),
    ("label_next", "What to label next", pictures.label_next),
    ("map", "Map", feature_map.feature_map),
    ("confusion", "Confusion", classes.confusion),
    ("calibration", "Calibration", calibration.calibration),
    ("training", "Training", curves.training),
    ("about", "Settings", about),
)


def build_sections(run: Run) -> dict[str, Row]:
    """Return the sections that can be drawn; others become problems of the run."""
    contents: dict[str, Row] = {}
    for name, title, build in SECTIONS:
        if name == "label_next" and "galleries" not in contents:
            continue
        try:
            content = build(run)
        except UNREADABLE as error:
            run.problems.append(
                f"The section '{title}' is left out: a file has unexpected contents "
                f"({type(error).__name__}: {error})."
            )
            continue
        if content is not None:
            contents[name] = content
    return contents


def render(run: Run) -> tuple[str, str | None]:
    """Return the page, and the list of what to label next as CSV, if there is one."""
    with np.errstate(all="ignore"):  # a damaged file may hold any number
        contents = build_sections(run)
    data = {name: content["island"] for name, content in contents.items() if "island" in content}
    shape = run.data.get("image_shape")
    sides = [number(side) or 0 for side in shape[1:]] if isinstance(shape, list) else []
    text = render_page(
        "report.html",
        ("numbers.js", "common.js", "report.js"),
        [(name, title) for name, title, _ in SECTIONS if name in contents],
        run.problems,
        run=run,
        name=run.path.resolve().name,
        method=str(run.config.get("method") or run.summary.get("method") or "unknown method"),
        source=str(run.config.get("source") or run.summary.get("source") or "unknown data"),
        seed=number(at(run.config, "train", "seed")),
        version=str(run.environment.get("daso") or ""),
        contents=contents,
        island=island({**data, "names": run.class_names}),
        small_images=bool(sides) and max(sides) <= SMALL_SIDE,
    )
    return text, contents["label_next"]["csv"] if "label_next" in contents else None


def write_report(
    folder: Path, out: Path | None = None, warn: Callable[[str], None] | None = None
) -> list[Path]:
    """Write the report of a run as one HTML file and what to label next as CSV.

    Args:
        folder: of the run, complete or not.
        out: HTML file to write (default: ``report.html`` in the run folder).
        warn: called with each damage of the run folder, which the page names, too.

    Returns:
        The paths of the files written.

    Raises:
        RunError: the folder is not a run folder, or nothing can be written.
    """
    run = load_run(folder)
    out = out or folder / "report.html"
    make_folder(out.parent)
    text, table = render(run)
    if warn is not None:
        for problem in run.problems:
            warn(problem)
    write_text(out, text)
    written = [out]
    if table is not None:
        written.append(out.with_name(f"{out.stem}-label-next.csv"))
        write_atomically(written[-1], table.encode("utf-8", "surrogateescape"))
    return written
