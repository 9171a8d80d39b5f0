"""Sections on single images: galleries, and which images to label next."""

from __future__ import annotations

import base64
import itertools
import shlex
from typing import Any
from urllib.parse import quote

import numpy as np

from daso.files import Row, csv_text, printable
from daso.report.html.run import Run
from daso.report.runs import at
from daso.report.wording import isolated

GALLERIES = ("disagreeing", "confident", "uncertain")
PARTS = ("score", "uncertainty", "rarity", "novelty")
DIGITS = 6
"""Decimals of a probability: few enough for small pages, and whole percents stay as they are."""
SUMMARIZED = 20
"""Number of images to label next that the summary covers."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings that a spreadsheet takes for a formula."""
KEYS = (
    *("index", "path", "thumb", "linear", "linear_probs", "semantic", "semantic_probs"),
    *("final", "confidence", "truth", "near"),
)
"""Order in which the script of the page gets the values of an image."""
COLUMNS = (
    *("rank", "path", "unlabeled_index", "source_index", *PARTS),
    *("classifier_says", "classifier_probability", "looks_like", "similarity_probability"),
    *("rarer_class", "labeled_images_of_it", "reason"),
)


def _thumbnails(run: Run) -> list[bytes]:
    offsets, content = run.arrays.get("thumbnails.offsets"), run.arrays.get("thumbnails.bytes")
    if offsets is None or content is None:
        return []
    return [content[a:b].tobytes() for a, b in itertools.pairwise(offsets)]


def _address(file: bytes) -> str:
    kind = "jpeg" if file.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def items(run: Run) -> list[Row]:
    """Return the facts about each shown image; thumbnails by number, -1 without one."""
    arrays, names = run.arrays, run.class_names
    owners: list[tuple[int, int]] = []
    if files := _thumbnails(run):
        pools, indices = arrays["thumbnails.pool"].tolist(), arrays["thumbnails.index"].tolist()
        owners = list(zip(pools, indices, strict=True))
        if len(owners) != len(files):
            raise ValueError(f"{len(files)} thumbnails of {len(owners)} images")
    thumbs = {owner: number for number, owner in enumerate(owners)}

    def path(kind: str, n: int) -> str:
        return str(at(run.beliefs, kind, str(n)) or "")

    shown = []
    for place, row in enumerate(arrays["shown.place"].tolist()):
        index = int(arrays["pool.index"][row])
        neighbors = zip(
            *(arrays[f"shown.{n}"][place].tolist() for n in ("near", "near_label", "near_cosine")),
            strict=True,
        )
        file = path("paths", index)
        item = {
            "index": index,
            "source": int(arrays["pool.source"][row]),
            "path": printable(file),
            "file": file,
            "thumb": thumbs.get((0, index), -1),
            "linear": arrays["pool.linear"][row].tolist(),
            "linear_probs": [round(float(p), DIGITS) for p in arrays["pool.linear_probs"][row]],
            "semantic": arrays["pool.semantic"][row].tolist(),
            "semantic_probs": [round(float(p), DIGITS) for p in arrays["pool.semantic_probs"][row]],
            "final": int(arrays["pool.final"][row]),
            "confidence": round(float(arrays["pool.confidence"][row]), DIGITS),
            "truth": int(arrays["pool.truth"][row]),
            "near": [
                [label, thumbs.get((1, n), -1), round(cos, 3), printable(path("labeled_paths", n))]
                for n, label, cos in neighbors
                if n >= 0
            ],
        }
        named = (*item["linear"], *item["semantic"], item["final"], *(n[0] for n in item["near"]))
        if not all(0 <= k < len(names) for k in named) or item["truth"] >= len(names):
            raise ValueError("a class number in beliefs.safetensors is out of range")
        shown.append(item)
    return shown


def galleries(run: Run) -> Row | None:
    """Return the images of the galleries for the script of the page."""
    if "shown.place" not in run.arrays:
        return None
    shown, addresses = items(run), [_address(file) for file in _thumbnails(run)]
    chosen = {name: run.arrays[name].tolist() for name in GALLERIES}
    if not all(0 <= place < len(shown) for places in chosen.values() for place in places):
        raise ValueError("a gallery of beliefs.safetensors has missing images")
    compact = [[item[key] for key in KEYS] for item in shown]
    return {
        "sizes": {name: len(chosen[name]) for name in GALLERIES},
        "images": bool(addresses),
        "prototypes": run.beliefs.get("prototypes"),
        "island": {"thumbs": addresses, "items": compact, "galleries": chosen, "order": run.order},
    }


def label_next(run: Run) -> Row | None:
    """Return the ranked images to label next, each with its reason in words."""
    ranked = run.arrays.get("next")
    if ranked is None or not len(ranked):
        return None
    shown, labeled = items(run), run.labeled_counts
    if not all(0 <= place < len(shown) for place in ranked.tolist()):
        raise ValueError("the list of beliefs.safetensors has missing images")
    rows = []
    for rank, place in enumerate(ranked.tolist()):
        pair = [int(run.arrays[f"next.{name}"][rank]) for name in ("likely", "other")]
        rarer = pair[0] if labeled is None else min(pair, key=lambda k: labeled[k])
        parts = {name: float(run.arrays[f"next.{name}"][rank]) for name in PARTS}
        reason = _reason(run, shown[place], pair, rarer)
        rows.append(
            {"rank": rank + 1, "item": shown[place], "rarer": rarer, "reason": reason, **parts}
        )
    table = csv_text(COLUMNS, (_csv_row(run, row) for row in rows))
    # The classes of a benchmark's unlabeled images are known already.
    benchmark = all(row["item"]["truth"] >= 0 for row in rows)
    return {
        "rows": rows,
        "command": None if benchmark else shlex.join(["daso", "label", str(run.path.absolute())]),
        "summary": _summary(run, rows),
        "csv": table,
        "address": f"data:text/csv;charset=utf-8,{quote(table, errors='surrogateescape')}",
    }


def _reason(run: Run, item: Row, pair: list[int], rarer: int) -> str:
    names, labeled = [*map(isolated, run.class_names)], run.labeled_counts
    says, like = item["linear"][0], item["semantic"][0]
    p, q = 100 * item["linear_probs"][0], 100 * item["semantic_probs"][0]
    if says != like:
        text = (
            f"The classifier says {names[says]} ({p:.0f}%), it looks like {names[like]} ({q:.0f}%)."
        )
        if rarer not in (says, like):
            text += f" It may also be {names[rarer]}."
    else:
        second = names[pair[1] if pair[0] == says else pair[0]]
        text = (
            f"Classifier and similarity both favor {names[says]} ({p:.0f}% and {q:.0f}%); "
            f"{second} comes next."
        )
    if labeled is not None:
        text += f" Labeled images of {names[rarer]}: {labeled[rarer]:,.0f}."
    return text


def _summary(run: Run, rows: list[Row]) -> list[str]:
    first, labeled = rows[:SUMMARIZED], run.labeled_counts
    rarer = np.bincount([row["rarer"] for row in first], minlength=run.num_classes)
    parts = []
    for k in (k for k in np.argsort(-rarer, kind="stable")[:4] if rarer[k]):
        text = f"{rarer[k]} may be {isolated(run.class_names[k])}"
        if labeled is not None:
            text += f" ({labeled[k]:,.0f} labeled image{'' if labeled[k] == 1 else 's'})"
        parts.append(text)
    lines = [f"Of the first {len(first)}, {', '.join(parts)}."]
    truths = np.array([row["item"]["truth"] for row in rows])
    pool, rare = run.arrays["pool.truth"], run.groups["few"]
    if (truths >= 0).all() and (pool >= 0).all() and rare:
        rare_here, rare_all = 100 * np.isin(truths, rare).mean(), 100 * np.isin(pool, rare).mean()
        wrong_here = 100 * np.mean([r["item"]["final"] != r["item"]["truth"] for r in rows])
        wrong_all = 100 * (run.arrays["pool.final"] != pool).mean()
        lines.append(
            f"The truth is known here: {rare_here:.0f}% of the {len(rows)} belong to the rarest "
            f"third of the classes, against {rare_all:.0f}% of all unlabeled images. The "
            f"pseudo-label is wrong for {wrong_here:.0f}%, against {wrong_all:.0f}%."
        )
    return lines


def _csv_row(run: Run, row: Row) -> tuple[Any, ...]:
    """Return the values of ``COLUMNS``; a spreadsheet finds no formula in them."""
    item, rarer, names, labeled = row["item"], row["rarer"], run.class_names, run.labeled_counts
    return (
        row["rank"],
        "./" + item["file"] if item["file"].startswith(FORMULA) else item["file"],
        item["index"],
        item["source"],
        *(f"{row[name]:.4f}" for name in PARTS),
        _cell(names[item["linear"][0]]),
        item["linear_probs"][0],
        _cell(names[item["semantic"][0]]),
        item["semantic_probs"][0],
        _cell(names[rarer]),
        "" if labeled is None else f"{labeled[rarer]:.0f}",
        _cell(row["reason"]),
    )


def _cell(text: str) -> str:
    return "'" + text if text.startswith(FORMULA) else text
