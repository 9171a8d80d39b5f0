"""Damaged and hostile array files and archives: .npz, IDX, STL-10, CIFAR's pickles and their .tar.gz."""

from __future__ import annotations

import codecs
import gzip
import io
import pickle
import pickletools
import struct
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from damage import QUICK, damaged, put, survives
from hypothesis import given
from hypothesis import strategies as st

from daso.data.benchmarks.cifar import CIFAR10, read_cifar
from daso.data.benchmarks.idx import FILES, read_idx, read_idx_file
from daso.data.benchmarks.stl10 import FILES as STL_FILES
from daso.data.benchmarks.stl10 import IMAGE_BYTES, read_stl10
from daso.data.benchmarks.unpickle import load_dictionary
from daso.data.formats.npz import read_npz
from daso.errors import DataError

LABELS = np.array([0, 1, 2, 0, 1, 2])
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)

NOT_REGULAR = (
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE,
)  # fmt: skip
"""Kinds of tar members that are not files."""


def npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def npz_stored() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, images=IMAGES, labels=LABELS)
    return stream.getvalue()


@QUICK
@given(damaged([npz(images=IMAGES, labels=LABELS), npz_stored()]))
def test_damaged_npz(tmp_path: Path, content: bytes) -> None:
    file = put(tmp_path / "a.npz", content)
    survives(lambda: read_npz(file))


def survives_arrays(folder: Path, header: bytes, body: bytes, *names: str) -> None:
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(f"{name}.npy", array)
    file = put(folder / "a.npz", stream.getvalue())
    survives(lambda: read_npz(file))


@QUICK
@given(st.binary(max_size=128), st.binary(max_size=64))
def test_any_header_of_an_array(tmp_path: Path, header: bytes, body: bytes) -> None:
    survives_arrays(tmp_path, header, body, "images", "labels")


@QUICK
@given(
    st.text(max_size=60), st.sampled_from(["(6, 8, 8)", "(2**40,)", "(-1,)", "()", "(10**30, 1)"])
)
def test_any_type_of_an_array(tmp_path: Path, descr: str, shape: str) -> None:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    survives_arrays(tmp_path, header, bytes(384), "images")


def idx(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )


@QUICK
@given(damaged([idx(IMAGES), gzip.compress(idx(IMAGES), mtime=0)]), damaged([idx(LABELS)]))
def test_damaged_idx(tmp_path: Path, images: bytes, labels: bytes) -> None:
    for name in FILES:
        put(tmp_path / name, images if "idx3" in name else labels)
    survives(lambda: read_idx(tmp_path))
    put(tmp_path / FILES[0], idx(IMAGES))
    put(tmp_path / FILES[2], idx(IMAGES))
    survives(lambda: read_idx(tmp_path))
    survives(lambda: read_idx_file(tmp_path / FILES[1], 1))


@QUICK
@given(st.sampled_from(STL_FILES), st.integers(0, 2 * IMAGE_BYTES + 1), st.binary(max_size=9))
def test_damaged_stl10(tmp_path: Path, name: str, length: int, beginning: bytes) -> None:
    for file in STL_FILES:
        put(tmp_path / file, bytes(2 * IMAGE_BYTES) if file.endswith("X.bin") else b"\x01\x02")
    put(tmp_path / name, (beginning + bytes(length))[:length])
    survives(lambda: read_stl10(tmp_path))


def batch() -> dict[object, object]:
    return {
        b"data": np.zeros((4, 3072), dtype=np.uint8),
        b"labels": [0, 1, 2, 3],
        b"filenames": [b"a.png"] * 4,
    }


PICKLES = [pickle.dumps(batch(), protocol) for protocol in range(6)]
WATCHED = ("os.", "subprocess.", "exec", "socket.", "shutil.", "ctypes.", "builtins.")
_events: list[str] | None = None


def _listen(event: str, _: object) -> None:
    if _events is not None and event.startswith(WATCHED):
        _events.append(event)


sys.addaudithook(_listen)
for _name in ("raw_unicode_escape", "unicode_escape", "latin1"):
    codecs.lookup(
        _name
    )  # else imported, which counts as running something, when a pickle first needs it


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fail if anything is run, opened to the outside, or changed on the disk."""
    global _events
    _events = []
    try:
        yield
        assert not _events, _events
    finally:
        _events = None


@QUICK
@given(damaged(PICKLES))
def test_damaged_pickles(content: bytes) -> None:
    with nothing_runs():
        survives(lambda: load_dictionary(content, "here"))


OPCODES = [code.code.encode("latin1") for code in pickletools.opcodes]
FOREIGN = [
    *(
        b"c" + name.encode() + b"\n"
        for name in ("os\nsystem", "builtins\neval", "builtins\ngetattr", "numpy\nload")
    ),
    *(
        b"c" + name.encode() + b"\n"
        for name in (
            "subprocess\nPopen",
            "daso.data.benchmarks.unpickle\nio",
            "copyreg\n__newobj__",
        )
    ),
    *(b"\x8c\x02os\x8c\x06system\x93", b"\x82\x01", b"Ppid\n"),
]
KNOWN = [
    b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n",
    b"X\x04\x00\x00\x00true", b"U\x02u1", b"K\x01", b"}", b"]", b"(", b")", b"\x85", b"\x86", b"R", b"b", b"q\x01",
    b"h\x01", b"h\x00", b"q\x00", b"s", b"a", b"t", b"u", b"o", b"\x81", b"\x92", b"0", b"2", b"N", b"\x94",
]  # fmt: skip


@QUICK
@given(st.lists(st.sampled_from(FOREIGN + KNOWN * 3 + OPCODES), max_size=40))
def test_any_pickle_runs_nothing(tokens: list[bytes]) -> None:
    with nothing_runs():
        survives(lambda: load_dictionary(b"\x80\x02" + b"".join(tokens) + b".", "here"))
        assert load_dictionary(pickle.dumps({b"a": b"b"}, 2), "here") == {
            "a": b"b"
        }  # nothing stays behind


def nested_tuple(depth: int, times: bytes) -> bytes:
    content = b"K\x01\x85q\x00"
    for level in range(depth):
        content += b"h" + bytes([level]) + times + b"\x86q" + bytes([level + 1])
    return content


AGAIN = b"X\x00\x00\x10\x00" + b"a" * 2**20 + b"q\x00" + b"K\x01s"
EQUAL = [
    b"\x8a\x0a" + (i * (2**61 - 1) + 2**70).to_bytes(10, "little") + b"K\x01" for i in range(50_000)
]
DOUBLED = [b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60)]


def test_pickles_that_would_take_forever_are_refused() -> None:
    """Refuse a tuple used twice, DUP, repeated encoding, equal hashes, long texts, a sparse memo."""
    for content in (
        b"}" + nested_tuple(60, b"h\x00") + b"K\x01s.",
        b"}K\x01\x85" + b"2\x86" * 60 + b"K\x01s.",
        b"}" + AGAIN + b"(" + b"c_codecs\nencode\nh\x00\x85R" * 5000 + b"t.",
        b"}(" + b"".join(EQUAL) + b"u.",
        b"cnumpy\ndtype\n]q\x00" + b"".join(DOUBLED) + b"\x85R.",
        b"]" + b"\x94" * 10 + b"r\xff\xff\xff\x7f.",
    ):
        with pytest.raises(DataError):
            load_dictionary(b"\x80\x02" + content, "here")


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


WHOLE = archive(*[(member(f"{CIFAR10.folder}/{name}"), PICKLES[2]) for name in CIFAR10.batches])


@QUICK
@given(damaged([WHOLE, gzip.decompress(WHOLE)]))
def test_damaged_archives(tmp_path: Path, content: bytes) -> None:
    if not content.startswith(b"\x1f\x8b"):
        content = gzip.compress(content, 1)
    file = put(tmp_path / "in" / "cifar-10-python.tar.gz", content)
    survives(lambda: read_cifar(file, CIFAR10))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_links_and_devices_in_archives_are_refused(tmp_path: Path) -> None:
    secret, first = put(tmp_path / "secret", PICKLES[2]), f"{CIFAR10.folder}/{CIFAR10.batches[0]}"
    members = [(member(f"{CIFAR10.folder}/{name}"), PICKLES[2]) for name in CIFAR10.batches[1:]]
    for kind in NOT_REGULAR:
        content = archive((member(first, kind, str(secret)), b""), *members)
        with pytest.raises(DataError, match="not a regular file"):
            read_cifar(put(tmp_path / "a.tar.gz", content), CIFAR10)


def test_names_that_lead_out_of_an_archive_are_passed_over(tmp_path: Path) -> None:
    names = [
        "../escaped",
        str(tmp_path / "escaped"),
        f"{CIFAR10.folder}/../../escaped",
        f"../{CIFAR10.folder}/data_batch_1",
    ]
    members = [(member(name), b"x") for name in names]
    members += [(member(f"{CIFAR10.folder}/{name}"), PICKLES[2]) for name in CIFAR10.batches]
    source = read_cifar(put(tmp_path / "in" / "a.tar.gz", archive(*members)), CIFAR10)
    assert len(source.train) == 20
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "in"]
