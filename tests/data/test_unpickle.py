"""A pickle is read as data: whatever it asks to run is refused, and not run."""

from __future__ import annotations

import itertools
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from daso.data.benchmarks.unpickle import load_dictionary
from daso.errors import DataError


class Runs:
    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.function, self.arguments


def test_arrays_and_plain_values() -> None:
    for protocol, dtype in itertools.product((2, 3, 4), ("u1", "<i8", ">i4", "f4")):
        rows = np.arange(12).reshape(3, 4).astype(dtype)
        value = {"rows": rows, b"columns": np.asfortranarray(rows), "list": [1, -2], "text": b"b"}
        loaded = load_dictionary(pickle.dumps(value, protocol), "here")
        assert np.array_equal(loaded["rows"], rows), (protocol, dtype)
        assert np.array_equal(loaded["columns"], rows), (protocol, dtype)
        assert loaded["rows"].dtype == rows.dtype
        assert loaded["list"] == [1, -2]
        assert loaded["text"] == b"b"


def test_old_and_new_module_names() -> None:
    content = pickle.dumps({"a": np.arange(3)}, 2)
    for name in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        for known in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
            renamed = content.replace(known, name)
            if renamed.count(name):
                assert load_dictionary(renamed, "here")["a"].tolist() == [0, 1, 2]


def test_python_2_byte_strings() -> None:
    # cPickle of {'data': array([[1, 2]], dtype=uint8), 'labels': [3]}, protocol 2.
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R("
        b"K\x01K\x01K\x02\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff"
        b"\xff\xffK\x00tb\x89U\x02\x01\x02tbU\x06labels]K\x03au."
    )
    loaded = load_dictionary(content, "here")
    assert loaded["data"].tolist() == [[1, 2]]
    assert loaded["labels"] == [3]


def test_code_is_refused_named_and_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    calls = (
        Runs(os.system, f"touch {witness}"),
        Runs(eval, f"open({str(witness)!r}, 'w')"),
        Runs(Path.touch, witness),
        Runs(np.ndarray.tofile, np.zeros(1), str(witness)),
    )
    for call, protocol in itertools.product(calls, range(6)):
        with pytest.raises(DataError, match=r"file\.pkl: refused: .* \S+\.\S+;"):
            load_dictionary(pickle.dumps({"data": call}, protocol), "file.pkl")
    assert not witness.exists()


def test_damaged_and_greedy_pickles() -> None:
    for content in (
        b"",
        b".",
        b"\x80\x02",
        b"not a pickle at all",
        b"\x80\x02]q\x00.",
        pickle.dumps({"a": 1})[:-3],
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"}.",
        b"\x80\x02}U\x01acnumpy\nndarray\n)Rs.",
        b"\x80\x02}U\x01acnumpy\ndtype\nU\x02O8\x85Rs.",
        pickle.dumps({"a": np.array([object()])}, 2),
        pickle.dumps({"a": np.zeros(4, dtype=np.uint8)}, 2).replace(b"K\x04\x85", b"K\x63\x85"),
        pickle.dumps([1, 2]),
    ):
        with pytest.raises(DataError):
            load_dictionary(content, "here")
