"""Small files that promise or unpack to gigabytes: refused with a reason, in little memory and time."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import textwrap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import put
from made_files import png_header, png_of_chunks

from daso.data.benchmarks.cifar import CIFAR10
from daso.data.benchmarks.stl10 import FILES as STL_FILES

PEAK = 700 * 2**20
"""Bytes that reading may add to what Python takes for itself: the largest limit of a reader, 512 MiB, and some."""
SECONDS = 300

READ = textwrap.dedent(
    """
    import json, os, resource, sys
    from daso.data.open import open_source
    from daso.errors import DasoError
    import numpy, PIL.Image, pyarrow.parquet, pyarrow.ipc
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers, top = {}, os.getcwd()
    for name, (source, options) in json.loads(sys.argv[1]).items():
        os.chdir(os.path.join(top, name))
        try:
            open_source(source, **options)
            answers[name] = ""
        except DasoError as error:
            answers[name] = str(error)
    added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps({"answers": answers, "added": added}))
    """
)


def zeros(mebibytes: int, bits: int = 15) -> bytes:
    """Return so many zeros, packed, without having them in memory."""
    packer, block = zlib.compressobj(1, zlib.DEFLATED, bits), bytes(2**20)
    return b"".join([*(packer.compress(block) for _ in range(mebibytes)), packer.flush()])


def gif(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\xf0\0\0" + bytes(6) + b",\0\0\0\0" + size + b"\0\x02\x02L\x01\0;"


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack(
        "<IIIIiiHHIIiiII", 100, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )


def in_folder(content: bytes, suffix: str = ".png") -> dict[str, bytes]:
    return {f"photos/labeled/{name}/0{suffix}": content for name in ("cat", "dog")}


def npz(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    header = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode() + b"\n"
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as member,
    ):
        member.write(b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header)
        for _ in range(300):
            member.write(bytes(2**20))
    return stream.getvalue()


def archive() -> bytes:
    """Return a CIFAR archive whose first file is 600 MiB of zeros."""
    info = tarfile.TarInfo(f"{CIFAR10.folder}/{CIFAR10.batches[0]}")
    info.size = 600 * 2**20
    return gzip.compress(info.tobuf(), 1) + zeros(600, 31)


def shard(kind: bytes, mebibytes: int) -> dict[str, bytes]:
    """Return labeled images, and a packed shard of unlabeled ones with a member of so many zeros."""
    info = tarfile.TarInfo("0.png")
    info.type, info.size = kind, mebibytes * 2**20
    return {
        **in_folder(good()),
        "photos/unlabeled/a.tar.gz": gzip.compress(info.tobuf(), 1) + zeros(mebibytes, 31),
    }


def repeating() -> dict[str, bytes]:
    content = (
        b"\x80\x02X\0\0\x10\0"
        + b"a" * 2**20
        + b"q\0"
        + b"("
        + b"c_codecs\nencode\nh\0\x85R" * 9999
        + b"t."
    )
    return {f"{CIFAR10.folder}/{name}": content for name in CIFAR10.batches}


def idx(count: int) -> dict[str, bytes]:
    images = gzip.compress(
        bytes((0, 0, 8, 3)) + struct.pack(">III", count, 9999, 9999) + bytes(2**20), 1
    )
    labels = gzip.compress(bytes((0, 0, 8, 1)) + struct.pack(">I", 3) + b"\0\1\0")
    names = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    return {f"{name}.gz": images if "idx3" in name else labels for name in names}


def texts() -> list[tuple[bytes, bytes]]:
    return [(b"zTXt", b"a\0\0" + zeros(16))] * 20


def profile() -> tuple[bytes, bytes]:
    return b"iCCP", b"a\0\0" + zeros(256)


def good() -> bytes:
    return png_of_chunks(png_header(8, 8), (b"IDAT", zlib.compress(bytes(200))))


def parquet() -> bytes:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    large = pa.array([bytes(2**25)] * 2, pa.large_binary())
    pq.write_table(pa.table({"image": large, "label": [0, 1]}), stream, compression="zstd")
    return stream.getvalue()


BOMBS: dict[str, tuple[Callable[[], dict[str, bytes]], str, dict[str, object], str]] = {
    "png-promises": (
        lambda: in_folder(png_of_chunks(png_header(2**31 - 1, 2**31 - 1))),
        "photos",
        {},
        "too many pixels",
    ),
    "png-unpacks": (
        lambda: in_folder(png_of_chunks(png_header(9400, 9400), (b"IDAT", zeros(64)))),
        "photos",
        {"size": 32},
        "could not be read",
    ),
    "png-texts": (
        lambda: in_folder(png_of_chunks(png_header(8, 8), *texts())),
        "photos",
        {},
        "could not be read",
    ),
    "png-profile": (
        lambda: in_folder(png_of_chunks(png_header(8, 8), profile())),
        "photos",
        {},
        "could not be read",
    ),
    "gif-promises": (lambda: in_folder(gif(65535, 65535), ".gif"), "photos", {}, "too many pixels"),
    "bmp-promises": (
        lambda: in_folder(bmp(2**30, 2**30), ".bmp"),
        "photos",
        {},
        "could not be read",
    ),
    "beyond-memory": (lambda: in_folder(good()), "photos", {"size": 10**7}, "GB of memory"),
    "npz-promises": (lambda: {"a.npz": npz((2**50,))}, "a.npz", {}, "its header promises"),
    "npz-unpacks": (lambda: {"a.npz": npz((300, 1024, 1024))}, "a.npz", {}, "no 'labels'"),
    "idx-promises": (lambda: idx(2**31), ".", {}, "its header promises"),
    "tar-unpacks": (lambda: {"a.tar.gz": archive()}, "a.tar.gz", {}, "unpacks to over"),
    "shard-member": (
        lambda: shard(tarfile.REGTYPE, 900),
        "photos",
        {},
        "943,718,400 bytes; at most",
    ),
    "shard-header": (
        lambda: shard(tarfile.XHDTYPE, 900),
        "photos",
        {},
        "name and times take 943,718,400",
    ),
    "shard-long-name": (
        lambda: shard(tarfile.GNUTYPE_LONGNAME, 900),
        "photos",
        {},
        "name and times take",
    ),
    "pickle-repeats": (lambda: repeating(), ".", {}, "makes more bytes than it holds"),
    "csv-endless": (lambda: {"a.csv": b"path,label\n" + b"a" * 2**26}, "a.csv", {}, "longer than"),
    "json-endless": (
        lambda: {"a.jsonl": b'{"path": ' + b"[" * 2**26},
        "a.jsonl",
        {},
        "longer than",
    ),
    "stl10-length": (
        lambda: {name: bytes(2**20 + 1) for name in STL_FILES},
        ".",
        {},
        "not a whole number",
    ),
    "huge-file": (
        lambda: {"photos/labeled/dog/0.png": good()},
        "photos",
        {},
        "0.jpg: not a readable image",
    ),
    "parquet-unpacks": (
        lambda: {"train.parquet": parquet()},
        ".",
        {},
        "2 images could not be read",
    ),
}


@pytest.mark.slow
def test_bombs_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    """Read all bombs in one process, which must not grow by more than ``PEAK``."""
    for name, (make, _, _, _) in BOMBS.items():
        files = make()
        assert sum(map(len, files.values())) < 2**27
        for file, content in files.items():
            put(tmp_path / name / file, content)
    with put(tmp_path / "huge-file/photos/labeled/cat/0.jpg", b"").open("r+b") as stream:
        stream.truncate(20 * 2**30)  # a hole: it takes no room on the disk
    jobs = {name: (source, options) for name, (_, source, options, _) in BOMBS.items()}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(jobs)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["added"] < PEAK
    answers = answer["answers"]
    assert not {name: answers[name] for name, bomb in BOMBS.items() if bomb[3] not in answers[name]}
