"""The same small data set in every format that daso label opens, and labels given to it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from made_files import Member, pixels, png, write_image, write_tar

from daso.data.journal import Journal
from daso.data.labeling import LabelingData, open_for_labeling

CONTENT = {
    "labeled": {"cat": 6, "dog": 5},
    "unlabeled": {"": 12},
    "test": {"cat": 2, "dog": 2},
}
"""Images by part and class."""
KINDS = ("folder", "manifest", "parquet", "tar", "tar.gz", "npz")


def images() -> list[tuple[str, str, int, int]]:
    """Return part, class, number and seed of all images of ``CONTENT``."""
    found, seed = [], 0
    for part, classes in CONTENT.items():
        for label, count in classes.items():
            for number in range(count):
                found.append((part, label, number, seed))
                seed += 1
    return found


def write_folder(folder: Path) -> Path:
    for part, label, number, seed in images():
        write_image(folder / part / label / f"{number:02d}.png", seed)
    return folder


def write_set(folder: Path, kind: str) -> Path:
    """Write ``CONTENT`` in one of ``KINDS``; return the source to open."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "folder":
        return write_folder(folder)
    if kind == "manifest":
        write_folder(folder)
        with (folder / "list.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("path", "label", "split"))
            for part, label, number, _ in images():
                split = "" if part != "test" else "test"
                rows.writerow((str(Path(part, label, f"{number:02d}.png")), label, split))
        return folder / "list.csv"
    parts: dict[str, list[tuple[str, int]]] = {}
    for part, label, _, seed in images():
        parts.setdefault(part, []).append((label, seed))
    if kind == "npz":
        named = {part: np.stack([pixels(seed) for _, seed in of]) for part, of in parts.items()}
        labels = {part: np.array([label == "dog" for label, _ in of]) for part, of in parts.items()}
        np.savez(
            folder / "x.npz",
            images=named["labeled"],
            labels=labels["labeled"].astype(np.int64),
            unlabeled=named["unlabeled"],
            test_images=named["test"],
            test_labels=labels["test"].astype(np.int64),
            class_names=np.array(["cat", "dog"]),
        )
        return folder / "x.npz"
    for part, of_part in parts.items():
        name = "train" if part == "labeled" else part
        if kind == "parquet":
            _write_parquet(folder / f"{name}-00000-of-00001.parquet", of_part)
        else:
            for start in range(0, len(of_part), 5):
                path = folder / f"{name}-{start:03d}.{kind}"
                _write_tar(path, of_part[start : start + 5], "w:gz" if kind == "tar.gz" else "w")
    return folder


def _write_parquet(path: Path, rows: Iterable[tuple[str, int]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "image": pa.array([{"bytes": png(pixels(seed)), "path": None} for _, seed in rows]),
            "label": pa.array([label or None for label, _ in rows], pa.string()),
        }
    )
    pq.write_table(table, path, row_group_size=3)


def _write_tar(path: Path, rows: Iterable[tuple[str, int]], mode: str) -> None:
    members: list[Member] = []
    for label, seed in rows:
        members.append((f"{seed:03d}.png", png(pixels(seed))))
        members += [(f"{seed:03d}.cls", label.encode())] if label else []
    write_tar(path, members, mode)


def give(journal: Journal, data: LabelingData, part: str, index: int, label: str | None) -> None:
    """Decide an image as the page does; no label: it is of none of the classes."""
    journal.append(
        "none" if label is None else "label",
        image=data.name(part, index),
        checksum=data.checksum(part, index),
        label=label,
    )


def label_some(source: Path, labels: dict[int, str | None], part: str = "unlabeled") -> Path:
    """Give labels to images of a part by their numbers; return the journal's place."""
    data = open_for_labeling(str(source))
    with Journal.open(data.journal) as journal:
        for index, label in labels.items():
            give(journal, data, part, index, label)
    return data.journal
