"""Damaged and hostile tar shards."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from damage import QUICK, damaged, put, survives
from hypothesis import given
from made_files import plain_png

from daso.data.formats.tar_shards import list_tars, read_samples, unlabeled_tars
from daso.errors import DataError

NOT_REGULAR = (
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE,
)  # fmt: skip
"""Kinds of tar members that are not files."""


def shard(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue().rstrip(b"\0") + bytes(2048)


IMAGE = plain_png(7, (4, 4))
PLAIN = shard(("0.png", IMAGE), ("0.cls", b"0"), ("1.png", IMAGE), ("1.json", b'{"label": 1}'))
LONG = shard((f"{'long/' * 60}0.png", IMAGE), ("ü.png", IMAGE), ("ü.cls", b"1"))
SAMPLES = [PLAIN, LONG, gzip.compress(PLAIN, 1)]


def read_both_ways(path: Path) -> None:
    """Read a shard as training does: first its keys, then its images."""
    pool = survives(lambda: unlabeled_tars(str(path)))
    if pool is not None:
        found = survives(lambda: [item for chunk in pool.chunks() for item in chunk])  # type: ignore[attr-defined]
        assert found is None or len(found) == len(pool)  # type: ignore[arg-type]


@QUICK
@given(damaged(SAMPLES))
def test_damaged_shards(tmp_path: Path, content: bytes) -> None:
    read_both_ways(put(tmp_path / "train-0.tar", content))
    survives(lambda: list_tars(tmp_path))


def test_only_regular_members_are_read(tmp_path: Path) -> None:
    secret = put(tmp_path / "secret.png", IMAGE)
    for kind in NOT_REGULAR:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            info = tarfile.TarInfo("0.png")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
        with pytest.raises(DataError, match="no images in it"):
            unlabeled_tars(str(put(tmp_path / "a.tar", stream.getvalue())))


def test_names_lead_nowhere(tmp_path: Path) -> None:
    names = ["../../escaped.png", "/escaped.png", f"{'../' * 50}escaped.png", "C:\\escaped.png"]
    path = put(tmp_path / "in" / "a.tar", shard(*[(name, IMAGE) for name in names]))
    assert len(list(read_samples(str(path), contents=True))) == len(names)
    assert sorted(os.listdir(tmp_path)) == ["in"]  # noqa: PTH208
