"""Damaged data is refused, or read without the loss of an image or label that is not told.

More of it, with other damage: ``DASO_FUZZ=1000 DASO_SEED=1 pytest -s FILE``.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import Member, png, write_tar
from test_hostile_arrays import idx, npz

from daso.data.benchmarks.cifar import CIFAR10
from daso.data.benchmarks.idx import FILES
from daso.data.images.decoded import digest
from daso.data.open import open_source
from daso.data.source import Source
from daso.errors import DasoError

FUZZ = int(os.environ.get("DASO_FUZZ", "25"))
"""Damaged files of each format."""
SEED = int(os.environ.get("DASO_SEED", "0"))
COUNT, TEST, SIDE = 12, 4, 8
random_pixels = np.random.default_rng(5)
PIXELS = random_pixels.integers(0, 256, (COUNT + TEST, SIDE, SIDE, 3), dtype=np.uint8)
LARGE = random_pixels.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
LABELS = np.arange(COUNT + TEST) % 3
NAMES = ("ant", "bee", "cat")


def write_npz(folder: Path) -> Path:
    arrays = {"images": PIXELS[:COUNT], "labels": LABELS[:COUNT]}
    held_out = {"test_images": PIXELS[COUNT:], "test_labels": LABELS[COUNT:]}
    (folder / "x.npz").write_bytes(npz(**arrays, **held_out))
    return folder / "x.npz"


def write_idx(folder: Path, pack: Callable[[bytes], bytes] = bytes) -> Path:
    gray = PIXELS[..., 0]
    arrays = (gray[:COUNT], LABELS[:COUNT], gray[COUNT:], LABELS[COUNT:])
    for name, array in zip(FILES, arrays, strict=True):
        suffix = "" if pack is bytes else ".gz"
        (folder / f"{name}{suffix}").write_bytes(pack(idx(array)))
    return folder


def write_pickles(folder: Path) -> Path:
    place = folder / CIFAR10.folder
    place.mkdir()
    for number, name in enumerate(CIFAR10.batches):
        batch = {b"data": LARGE[number : number + 1].reshape(1, -1), b"labels": [number]}
        (place / name).write_bytes(pickle.dumps(batch, 2))
    return folder


def write_archive(folder: Path) -> Path:
    write_pickles(folder)
    path = folder / CIFAR10.archive
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / CIFAR10.folder, CIFAR10.folder)
    shutil.rmtree(folder / CIFAR10.folder)
    return path


def write_shards(folder: Path, suffix: str = ".tar") -> Path:
    for part, chosen in (("train", range(COUNT)), ("test", range(COUNT, COUNT + TEST))):
        members: list[Member] = []
        for number in chosen:
            members.append((f"{number}.png", png(PIXELS[number])))
            members.append((f"{number}.cls", NAMES[LABELS[number]].encode()))
        write_tar(folder / f"{part}-0{suffix}", members, "w:gz" if "gz" in suffix else "w")
    return folder


def table(chosen: range) -> Any:
    pa = pytest.importorskip("pyarrow")
    images = [{"bytes": png(PIXELS[n]), "path": None} for n in chosen]
    return pa.table({"image": pa.array(images), "label": [NAMES[LABELS[n]] for n in chosen]})


def write_parquet(folder: Path) -> Path:
    parquet = pytest.importorskip("pyarrow.parquet")
    for part, chosen in (("train", range(COUNT)), ("test", range(COUNT, COUNT + TEST))):
        path = folder / f"{part}-00000-of-00001.parquet"
        parquet.write_table(table(chosen), path, row_group_size=4, write_page_checksum=True)
    return folder


def write_arrow(folder: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for part, chosen in (("train", range(COUNT)), ("test", range(COUNT, COUNT + TEST))):
        (folder / part).mkdir()
        rows = table(chosen)
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=4)
        (folder / part / "data-0.arrow").write_bytes(stream.getvalue())
        state = {"_data_files": [{"filename": "data-0.arrow"}]}
        (folder / part / "state.json").write_text(json.dumps(state))
        info = {"features": {"image": {}, "label": {"_type": "Value"}}}
        info |= {"splits": {part: {"name": part, "num_examples": len(chosen)}}}
        (folder / part / "dataset_info.json").write_text(json.dumps(info))
    return folder


def write_manifest(folder: Path, suffix: str = ".csv") -> Path:
    rows = []
    for number, pixels in enumerate(PIXELS):
        (folder / f"{number:02d}.png").write_bytes(png(pixels))
        split = "train" if number < COUNT else "test"
        rows.append((f"{number:02d}.png", NAMES[LABELS[number]], split))
    columns = ("path", "label", "split")
    lines = [",".join(columns), *map(",".join, rows)]
    if suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    (folder / f"list{suffix}").write_text("\n".join(lines) + "\n")
    return folder / f"list{suffix}"


FORMATS: dict[str, tuple[Callable[[Path], Path], str, bool]] = {
    "npz": (write_npz, "*.npz", True),
    "idx": (write_idx, "*ubyte", False),
    "idx.gz": (lambda folder: write_idx(folder, gzip.compress), "*.gz", True),
    "pickle": (write_pickles, "*/*batch*", False),
    "archive": (write_archive, "*.gz", True),
    "tar": (write_shards, "*.tar", False),
    "tar.gz": (lambda folder: write_shards(folder, ".tar.gz"), "*.gz", True),
    "parquet": (write_parquet, "*.parquet", True),
    "arrow": (write_arrow, "*/*", False),
    "csv": (write_manifest, "*.csv", False),
    "jsonl": (lambda folder: write_manifest(folder, ".jsonl"), "*.jsonl", False),
}
"""How each is written, its files, and whether checksums vouch for every byte of images and labels."""


def contents(source: Source) -> Counter[tuple[str, bytes, str | None]]:
    """Count the images of a data set: part, digest of the pixels, class."""
    found: Counter[tuple[str, bytes, str | None]] = Counter()
    for part, pool in source.parts().items():
        for pixels, label in zip(np.asarray(pool.images), pool.labels.tolist(), strict=True):
            name = source.class_names[label] if label >= 0 else None
            found[part, digest(pixels), name] += 1
    return found


def damage(content: bytes, draw: random.Random) -> bytes:
    """Return a file's content with one fault."""
    changed = bytearray(content)
    place, length = draw.randrange(len(content)), draw.choice((1, 2, 7, 64, 512, 4096))
    kind = draw.randrange(9)
    if kind < 2:
        changed[place] ^= 1 << draw.randrange(8)
    elif kind == 2:
        changed[place] = draw.randrange(256)
    elif kind == 3:
        del changed[place - place % length :]
    elif kind == 4:
        del changed[place : place + length]
    elif kind == 5:
        changed[place:place] = changed[place : place + length]
    elif kind == 6:
        changed[place : place + length] = bytes(len(changed[place : place + length]))
    elif kind == 7:
        start = place - place % length
        changed[start : start + length] = draw.randbytes(len(changed[start : start + length]))
    else:
        changed += draw.choice((content, bytes(length), draw.randbytes(length)))
    return bytes(changed)


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files(tmp_path: Path, kind: str) -> None:
    write, pattern, vouched = FORMATS[kind]
    (tmp_path / "data").mkdir()
    place = write(tmp_path / "data")
    files = sorted((tmp_path / "data").glob(pattern))
    source = open_source(str(place))
    expected, notes = contents(source), source.notes
    draw = random.Random(f"{SEED} {kind}")
    counts = {"same": 0, "refused": 0, "told": 0, "other bytes": 0}
    for number in range(FUZZ):
        file = draw.choice(files)
        content = file.read_bytes()
        file.write_bytes(damage(content, draw))
        try:
            source = open_source(str(place), skip_bad=bool(number % 2))
        except DasoError:
            counts["refused"] += 1
            continue
        finally:
            (tmp_path / "damaged").write_bytes(file.read_bytes())
            file.write_bytes(content)
        found = contents(source)
        if found == expected:
            counts["same"] += 1
        elif source.skipped or source.notes != notes:
            counts["told"] += 1
        else:
            assert not vouched, (number, file, found - expected, expected - found)
            rows = expected.total()
            if kind in ("csv", "jsonl"):  # a shorter table is a table
                lines = (tmp_path / "damaged").read_bytes().split(b"\n")
                rows = len([line for line in lines if line.strip()]) - (kind == "csv")
            assert found.total() == rows, (number, file, (tmp_path / "damaged").read_bytes()[:600])
            counts["other bytes"] += 1
    print(f"{kind}: {counts}", end=" ")


def test_files_that_end_between_two_rows(tmp_path: Path) -> None:
    """Refuse what its format takes for a whole file, but is none."""
    stream = write_arrow(tmp_path) / "train" / "data-0.arrow"
    content = stream.read_bytes()
    pa = pytest.importorskip("pyarrow")
    with pa.ipc.open_stream(content) as opened:
        batches = [opened.read_next_batch() for _ in range(2)]
    short = io.BytesIO()
    writer = pa.ipc.new_stream(short, batches[0].schema)
    for batch in batches:
        writer.write_batch(batch)
    assert content.startswith(short.getvalue())
    stream.write_bytes(short.getvalue())
    with pytest.raises(DasoError, match="cut short"):
        open_source(str(tmp_path))
    for suffix in (".tar", ".tar.gz"):
        folder = tmp_path / suffix.replace(".", "")
        folder.mkdir()
        shard = write_shards(folder, suffix) / f"train-0{suffix}"
        one = shard.read_bytes()
        for damaged in (one + one, one[:-6]) if suffix == ".tar.gz" else (one + one,):
            shard.write_bytes(damaged)
            with pytest.raises(DasoError, match=r"more follows|not a readable tar"):
                open_source(str(folder))
