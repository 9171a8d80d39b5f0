"""The page: sections from a run folder, put into the templates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from daso.errors import RunError
from daso.files import Row, flatten, write_atomically
from daso.report.html import calibration, classes, curves, feature_map, overview, pictures
from daso.report.html.run import UNREADABLE, Run, at, load_run, number
from daso.report.html.template import island, render_page

SECTIONS: tuple[tuple[str, str, Callable[[Run], Row | None]], ...] = (
    ("overview", "Summary", overview.overview),
    ("classes", "Classes", classes.classes),
    ("pseudo_labels", "Pseudo-labels", curves.pseudo_labels),
    ("galleries", "Images", pictures.galleries),
    ("label_next", "What to label next", lambda run: None),
    ("map", "Map", feature_map.feature_map),
    ("confusion", "Confusion", classes.confusion),
    ("calibration", "Calibration", calibration.calibration),
    ("training", "Training", curves.training),
    ("about", "Settings", lambda run: about(run)),
)


def about(run: Run) -> Row:
    """Return configuration and environment as flat lists of names and values."""
    groups = []
    for title, value in (
        ("Configuration", run.config),
        ("Data", run.data),
        ("Environment", run.environment),
    ):
        texts = [(name, _text(item)) for name, item in flatten(value).items()]
        flat = [(name, text) for name, text in texts if text != ""]
        if flat:
            groups.append((title, flat))
    return {"groups": groups}


def _text(value: Any) -> str:
    if isinstance(value, list):
        more = f" … ({len(value)})" if len(value) > 20 else ""
        return ", ".join(map(str, value[:20])) + more
    return "" if value is None else str(value)


def build_sections(run: Run) -> dict[str, Row]:
    """Return the contents of each section that can be drawn; what cannot is added to the run's problems."""
    contents: dict[str, Row] = {}
    for name, title, build in SECTIONS:
        try:
            if name == "label_next":
                found = (
                    pictures.label_next(run, contents["galleries"]["shown"])
                    if "galleries" in contents
                    else None
                )
            else:
                found = build(run)
        except UNREADABLE as error:
            run.problems.append(
                f"The section '{title}' is left out: a file does not hold what it should "
                f"({type(error).__name__}: {error})."
            )
            continue
        if found is not None:
            contents[name] = found
    return contents


def _are_small(run: Run) -> bool:
    """Tell whether the images are so small that their pixels shall be seen."""
    shape = run.data.get("image_shape")
    sides = [number(side) or 0 for side in shape[1:]] if isinstance(shape, list) else []
    return bool(sides) and max(sides) <= 32


def render(run: Run) -> tuple[str, str | None]:
    """Return the page, and the list of what to label next as CSV, if there is one."""
    with np.errstate(all="ignore"):  # numbers of a damaged file may be anything
        contents = build_sections(run)
    data: dict[str, Any] = {
        name: found["island"] for name, found in contents.items() if "island" in found
    }
    data["names"] = run.class_names
    sections = [(name, title, contents[name]) for name, title, _ in SECTIONS if name in contents]
    text = render_page(
        "report.html",
        ("common.js", "report.js"),
        [(name, title) for name, title, _ in sections],
        run.problems,
        run=run,
        name=run.path.resolve().name,
        method=str(run.config.get("method") or run.summary.get("method") or "unknown method"),
        source=str(run.config.get("source") or run.summary.get("source") or "unknown data"),
        seed=number(at(run.config, "train", "seed")),
        version=str(run.environment.get("daso") or ""),
        sections=sections,
        contents=contents,
        island=island(data),
        small_images=_are_small(run),
    )
    return text, contents["label_next"]["csv"] if "label_next" in contents else None


def write_report(folder: Path, out: Path | None = None) -> list[Path]:
    """Write the report of a run as one HTML file and, beside it, what to label next as CSV.

    Args:
        folder: of the run, complete or not.
        out: of the HTML file; ``report.html`` in the run folder if it is not given.

    Returns:
        The paths of the files written.

    Raises:
        RunError: it is no run folder, or nothing can be written.
    """
    run = load_run(folder)
    out = out or folder / "report.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {out.parent}: {error.strerror or error}") from error
    text, table = render(run)
    write_atomically(out, text.encode("utf-8", "replace"))
    written = [out]
    if table is not None:
        written.append(out.with_name(f"{out.stem}-label-next.csv"))
        write_atomically(written[-1], table.encode("utf-8", "replace"))
    return written
