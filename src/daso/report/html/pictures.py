"""What the model believes about single images: galleries, and which to label next."""

from __future__ import annotations

import base64
import csv
import io
import itertools

import numpy as np

from daso.files import Row
from daso.report.html.run import Run

GALLERIES = ("disagreeing", "confident", "uncertain")
SUMMED_UP = 20
"""Of the list of images to label next: so many are summed up in words."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for the beginning of a formula."""


def thumbnails(run: Run) -> tuple[list[str], dict[tuple[int, int], int]]:
    """Return the thumbnails as data addresses, and which image (0 unlabelled or 1 labelled, number) has which."""
    offsets, content = run.arrays.get("thumbnails.offsets"), run.arrays.get("thumbnails.bytes")
    if offsets is None or content is None:
        return [], {}
    files = [content[a:b].tobytes() for a, b in itertools.pairwise(offsets)]
    owners = list(
        zip(
            run.arrays["thumbnails.pool"].tolist(),
            run.arrays["thumbnails.index"].tolist(),
            strict=True,
        )
    )
    if len(owners) != len(files):
        raise ValueError(f"{len(files)} thumbnails of {len(owners)} images")
    kinds = (("png", b"\x89PNG"), ("jpeg", b"\xff\xd8"))
    addresses = []
    for file in files:
        kind = next((name for name, magic in kinds if file.startswith(magic)), "png")
        addresses.append(f"data:image/{kind};base64,{base64.b64encode(file).decode()}")
    return addresses, {owner: place for place, owner in enumerate(owners)}


def items(run: Run, places: dict[tuple[int, int], int]) -> list[Row]:
    """Return what is to be said of each shown image."""
    arrays, names = run.arrays, run.class_names
    paths, labeled_paths = (
        value if isinstance(value := run.beliefs.get(key), dict) else {}
        for key in ("paths", "labeled_paths")
    )
    result = []
    for shown, row in enumerate(arrays["shown.place"].tolist()):
        index = int(arrays["pool.index"][row])
        truth = int(arrays["pool.truth"][row])
        near = []
        for other, label, cosine in zip(
            arrays["shown.near"][shown].tolist(),
            arrays["shown.near_label"][shown].tolist(),
            arrays["shown.near_cosine"][shown].tolist(),
            strict=True,
        ):
            if other >= 0:
                name = str(labeled_paths.get(str(other), ""))
                near.append([label, places.get((1, other), -1), round(cosine, 3), name])
        item = {
            "index": index,
            "source": int(arrays["pool.source"][row]),
            "path": str(paths.get(str(index), "")),
            "thumb": places.get((0, index), -1),
            "linear": arrays["pool.linear"][row].tolist(),
            "linear_probs": [round(float(p), 3) for p in arrays["pool.linear_probs"][row]],
            "semantic": arrays["pool.semantic"][row].tolist(),
            "semantic_probs": [round(float(p), 3) for p in arrays["pool.semantic_probs"][row]],
            "final": int(arrays["pool.final"][row]),
            "confidence": round(float(arrays["pool.confidence"][row]), 3),
            "truth": truth,
            "near": near,
        }
        classes = (*item["linear"], *item["semantic"], item["final"], *(n[0] for n in near))
        if not all(0 <= k < len(names) for k in classes) or truth >= len(names):
            raise ValueError("a class number in beliefs.safetensors is out of range")
        result.append(item)
    return result


def galleries(run: Run) -> Row | None:
    """Return the images that the galleries show and what is said of them, for the script of the page."""
    if "shown.place" not in run.arrays:
        return None
    addresses, places = thumbnails(run)
    shown = items(run, places)
    chosen = {name: run.arrays[name].tolist() for name in GALLERIES}
    if not all(0 <= place < len(shown) for places in chosen.values() for place in places):
        raise ValueError("a gallery of beliefs.safetensors has images that are not there")
    keys = (
        "index",
        "path",
        "thumb",
        "linear",
        "linear_probs",
        "semantic",
        "semantic_probs",
        "final",
    )
    compact = [
        [*(item[key] for key in keys), item["confidence"], item["truth"], item["near"]]
        for item in shown
    ]
    return {
        "sizes": {name: len(chosen[name]) for name in GALLERIES},
        "sampled": len(run.arrays["pool.index"]),
        "images": bool(addresses),
        "shown": shown,
        "prototypes": run.beliefs.get("prototypes"),
        "island": {"thumbs": addresses, "items": compact, "galleries": chosen, "order": run.order},
    }


def label_next(run: Run, shown: list[Row]) -> Row | None:
    """Return the ranked list of images to label next, with the reason of each in words.

    Args:
        run: the run.
        shown: as ``galleries`` returned them.
    """
    ranked = run.arrays.get("next")
    if ranked is None or not len(ranked):
        return None
    if not all(0 <= place < len(shown) for place in ranked.tolist()):
        raise ValueError("the list of beliefs.safetensors has images that are not there")
    labeled = run.labeled_counts
    rows = []
    for rank, place in enumerate(ranked.tolist()):
        item = shown[place]
        pair = [int(run.arrays[f"next.{name}"][rank]) for name in ("likely", "other")]
        rarer = min(pair, key=lambda k: labeled[k]) if labeled is not None else pair[0]
        parts = {
            n: float(run.arrays[f"next.{n}"][rank])
            for n in ("score", "uncertainty", "rarity", "novelty")
        }
        row = {"rank": rank + 1, "item": item, "rarer": rarer, "pair": pair, **parts}
        rows.append(row | {"reason": _reason(run, item, pair, rarer)})
    return {"rows": rows, "summary": _next_summary(run, rows), "csv": to_csv(run, rows)}


def _images(count: float) -> str:
    return f"{count:,.0f} labelled image" + ("" if count == 1 else "s")


def _reason(run: Run, item: Row, pair: list[int], rarer: int) -> str:
    names, labeled = run.class_names, run.labeled_counts
    says, like = item["linear"][0], item["semantic"][0]
    p, q = 100 * item["linear_probs"][0], 100 * item["semantic_probs"][0]
    if says != like:
        text = (
            f"The classifier says {names[says]} ({p:.0f}%), it looks like {names[like]} ({q:.0f}%)."
        )
    else:
        text = (
            f"Classifier and similarity both lean to {names[says]}, unsurely ({p:.0f}% and {q:.0f}%); "
            f"{names[pair[1] if pair[0] == says else pair[0]]} comes next."
        )
    if says != like and rarer not in (says, like):
        text += f" It may also be {names[rarer]}."
    if labeled is not None:
        text += f" Labelled images of {names[rarer]}: {labeled[rarer]:,.0f}."
    return text


def _next_summary(run: Run, rows: list[Row]) -> list[str]:
    first = rows[:SUMMED_UP]
    rarer = np.bincount([row["rarer"] for row in first], minlength=run.num_classes)
    often = [int(k) for k in np.argsort(-rarer, kind="stable")[:4] if rarer[k]]
    labeled = run.labeled_counts
    said = [
        f"{rarer[k]} may be {run.class_names[k]}"
        + (f" ({_images(float(labeled[k]))})" if labeled is not None else "")
        for k in often
    ]
    lines = [f"Of the first {len(first)}, " + ", ".join(said) + "."]
    truths = np.array([row["item"]["truth"] for row in rows])
    pool = run.arrays["pool.truth"]
    if len(truths) and (truths >= 0).all() and (pool >= 0).all() and run.groups["few"]:
        rare = run.groups["few"]
        mistaken = np.mean([row["item"]["final"] != row["item"]["truth"] for row in rows])
        found, expected = 100 * np.isin(truths, rare).mean(), 100 * np.isin(pool, rare).mean()
        wrong, usual = 100 * mistaken, 100 * (run.arrays["pool.final"] != pool).mean()
        lines.append(
            f"The truth is known here: {found:.0f}% of the {len(rows)} are of the rarest third of the classes (of all "
            f"unlabelled images {expected:.0f}%), and the pseudo-label of {wrong:.0f}% is wrong (of all {usual:.0f}%)."
        )
    return lines


def to_csv(run: Run, rows: list[Row]) -> str:
    """Return the list of images to label next as CSV. Nothing in it is read as a formula by a spreadsheet."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    header = (
        "rank,path,unlabeled_index,source_index,score,uncertainty,rarity,novelty,classifier_says,"
    )
    header += "classifier_probability,looks_like,similarity_probability,rarer_class,labeled_images_of_it,reason"
    writer.writerow(header.split(","))
    labeled, names = run.labeled_counts, run.class_names
    for row in rows:
        item = row["item"]
        path = "./" + item["path"] if item["path"].startswith(FORMULA) else item["path"]
        writer.writerow(
            (
                row["rank"],
                path,
                item["index"],
                item["source"],
                *(f"{row[name]:.4f}" for name in ("score", "uncertainty", "rarity", "novelty")),
                _cell(names[item["linear"][0]]),
                item["linear_probs"][0],
                _cell(names[item["semantic"][0]]),
                item["semantic_probs"][0],
                _cell(names[row["rarer"]]),
                "" if labeled is None else f"{labeled[row['rarer']]:.0f}",
                _cell(row["reason"]),
            )
        )
    return file.getvalue()


def _cell(text: str) -> str:
    return "'" + text if text.startswith(FORMULA) else text
