"""Manifests of images whose first pixel is their number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_files import plain_png

from daso.data.open import open_source

ROWS: list[dict[str, Any]] = [
    {"path": "a.png", "label": "cat", "split": ""},
    {"path": "in/b.png", "label": "dog", "split": "train"},
    {"path": "in/c.png", "label": "", "split": "train"},
    {"path": "d.png", "label": "dog", "split": "unlabeled"},
    {"path": "e.png", "label": "emu", "split": "Unlabelled"},
    {"path": "f.png", "label": "cat", "split": "val"},
    {"path": "g.png", "label": "dog", "split": "test"},
    {"path": "h, i.png", "label": "dog", "split": "labeled"},
]


def write_images(folder: Path) -> Path:
    """Write the images of ``ROWS``."""
    (folder / "in").mkdir()
    for number, row in enumerate(ROWS):
        (folder / row["path"]).write_bytes(plain_png((number, 0, 0)))
    return folder


def quoted(value: str) -> str:
    return f'"{value}"' if "," in value or '"' in value else value


def write(file: Path, rows: list[dict[str, Any]], *, separator: str = ",", start: str = "") -> Path:
    lines = [
        separator.join(rows[0]),
        *(separator.join(quoted(str(v)) for v in row.values()) for row in rows),
    ]
    file.write_text(start + "\n".join(lines) + "\n", encoding="utf-8")
    return file


def values(file: Path, **options: Any) -> dict[str, list[tuple[int, int]]]:
    source = open_source(str(file), **options)
    pools = {part: getattr(source, part) for part in ("train", "unlabeled", "validation", "test")}
    return {
        part: list(zip(pool.images[:, 0, 0, 0].tolist(), pool.labels.tolist(), strict=True))
        for part, pool in pools.items()
        if pool is not None
    }


def write_as(suffix: str, folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / f"m{suffix}"
    if suffix == ".csv":
        return write(file, rows)
    if suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), file)
    return file
