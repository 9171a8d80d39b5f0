"""Read a pickled dictionary of plain values and numpy arrays, and run nothing that a pickle asks for."""

from __future__ import annotations

import io
import math
import pickle
import pickletools

import numpy as np
import numpy.typing as npt

from daso.errors import DataError

NUMBER_TYPES = frozenset(f"{kind}{width}" for kind in "iu" for width in (1, 2, 4, 8)) | {"f4", "f8"}
MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


def load_dictionary(content: bytes, where: str) -> dict[str, object]:
    """Load a pickled dictionary whose values are plain or numeric arrays; its keys are decoded to str.

    Nothing of numpy, or of any module, is called while the pickle is read: its arrays are rebuilt by the
    classes below from their type, shape and bytes. Byte strings of Python 2 stay bytes.

    Raises:
        DataError: the pickle is damaged, or asks for anything beyond plain values and numpy arrays.
    """
    try:
        _check_memory(content, where)
        value = _PlainUnpickler(content, where).load()
    except DataError:
        raise
    # A damaged pickle raises nearly anything: EOFError, KeyError, IndexError, UnpicklingError, MemoryError.
    except Exception as error:
        raise DataError(f"{where}: not a readable pickle: {error or type(error).__name__}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: the pickle holds {type(value).__name__}, a dictionary was expected")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): _finished(item, where)
        for key, item in value.items()
    }


def _check_memory(content: bytes, where: str) -> None:
    """Refuse lengths beyond the content (pickletools does) and memo numbers beyond the steps so far."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name in MEMO_OPCODES and isinstance(argument, int) and argument > count:
            raise DataError(f"{where}: refused, the pickle numbers its memory beyond its own length")


def _finished(item: object, where: str) -> object:
    if not isinstance(item, _Array):
        return item
    if item.value is None:
        raise DataError(f"{where}: the pickle holds an array without content")
    return item.value


class _NumberType:
    """Stands in for ``numpy.dtype``: numbers only."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        self.code = code.decode("latin1") if isinstance(code, bytes) else str(code)
        self.order = "|"
        if self.code not in NUMBER_TYPES:
            raise DataError(f"arrays of type {self.code!r} are refused; numbers only")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else str(state[1])
        if order not in ("|", "<", ">", "="):
            raise DataError(f"array byte order {order!r} is unknown")
        self.order = order


class _Array:
    """Stands in for ``numpy.ndarray``: takes numpy's state (version, shape, type, column order, bytes)."""

    value: npt.NDArray[np.generic] | None = None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, number_type, by_columns, content = state
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise DataError(f"array shape {shape!r} is not one")
        if not isinstance(number_type, _NumberType) or not isinstance(content, bytes):
            raise DataError("arrays of anything but numbers are refused")
        dtype = np.dtype(number_type.order + number_type.code)
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise DataError(f"an array of shape {shape} has {len(content)} bytes of content")
        self.value = np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Stands in for ``_codecs.encode``, by which Python 3 writes bytes into pickles for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise DataError(f"encoding {encoding!r} is refused")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _NumberType,
    ("_codecs", "encode"): _encode,
}


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes, where: str) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self.where = where

    def find_class(self, module: str, name: str, /) -> object:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise DataError(
                f"{self.where}: refused, the pickle asks for {module}.{name}; only plain values and numpy "
                "arrays are read. Do not use this file, fetch it again from its publisher"
            ) from None
