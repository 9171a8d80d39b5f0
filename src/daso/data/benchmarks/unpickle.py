"""Read a pickled dictionary of plain values and numpy arrays without running anything."""

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
GET_OPCODES = frozenset({"GET", "BINGET", "LONG_BINGET"})
TUPLE_OPCODES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"})
REFUSED_OPCODES = frozenset({
    "DUP", "EMPTY_SET", "FROZENSET", "ADDITEMS", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4",
    "NEXT_BUFFER",
})  # fmt: skip
"""Not needed for arrays and plain values."""
LARGEST_INTEGER = 2**63


def load_dictionary(content: bytes, where: str) -> dict[str, object]:
    """Load a pickled dictionary of plain values and numeric arrays; its keys are decoded to str.

    No function of any module is called: the classes below rebuild arrays from their type, shape and
    bytes. Byte strings of Python 2 stay bytes.

    Raises:
        DataError: the pickle is damaged, or holds more than plain values and numpy arrays.
    """
    try:
        _check_opcodes(content)
        value = _PlainUnpickler(content).load()
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    # A damaged pickle raises nearly anything: EOFError, KeyError, UnpicklingError, MemoryError.
    except Exception as error:
        reason = error or type(error).__name__
        raise DataError(
            f"{where}: not a readable pickle: {reason}; fetch the file again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: must be a pickled dictionary, found {type(value).__name__}")
    loaded: dict[str, object] = {}
    for key, item in value.items():
        if not isinstance(key, bytes | str | int):
            raise DataError(f"{where}: the pickle has a key of type {type(key).__name__}")
        if isinstance(item, _Array):
            if item.value is None:
                raise DataError(f"{where}: the pickle has an array without content")
            item = item.value
        loaded[key.decode("latin1") if isinstance(key, bytes) else str(key)] = item
    return loaded


def _check_opcodes(content: bytes) -> None:
    """Refuse a pickle that takes time or memory out of proportion to its length.

    pickletools itself refuses lengths beyond the content. A tuple used twice could be nested so
    that hashing it never ends, and integers beyond 64 bits can be chosen to have equal hashes.
    """
    memory: set[int] = set()
    tuples: set[int] = set()
    before = ""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if name in REFUSED_OPCODES:
            raise DataError(f"refused: the pickle uses {name}, which plain values do not need")
        if name in MEMO_OPCODES or name == "MEMOIZE":
            place = len(memory) if argument is None else int(argument)
            if place > count:
                raise DataError("refused: the pickle numbers its memory beyond its own length")
            memory.add(place)
            (tuples.add if before in TUPLE_OPCODES else tuples.discard)(place)
            continue  # the value put there is still the latest
        if name in GET_OPCODES and argument is not None and int(argument) in tuples:
            raise DataError("refused: the pickle uses a tuple twice")
        if isinstance(argument, int) and abs(argument) > LARGEST_INTEGER:
            raise DataError("refused: the pickle has an integer beyond 64 bits")
        before = name


def _text(value: object) -> str:
    """Return a short text; refuse anything else without formatting it."""
    if not isinstance(value, bytes | str) or len(value) > 16:
        raise DataError("an array's type and byte order must be short texts")
    return value.decode("latin1") if isinstance(value, bytes) else value


class _NumberType:
    """Replaces ``numpy.dtype``: numbers only."""

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        self.code = _text(code)
        self.order = "|"
        if self.code not in NUMBER_TYPES:
            raise DataError(f"arrays of type {self.code!r} are refused; only numbers are read")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        order = _text(state[1])
        if order not in ("|", "<", ">", "="):
            raise DataError(f"array byte order {order!r} is unknown")
        self.order = order


class _Array:
    """Replaces ``numpy.ndarray``; its state is (version, shape, type, column order, bytes)."""

    value: npt.NDArray[np.generic] | None = None

    def __setstate__(self, state: tuple[object, ...]) -> None:
        _, shape, number_type, by_columns, content = state
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise DataError("an array's shape must be whole numbers")
        if not isinstance(number_type, _NumberType) or not isinstance(content, bytes):
            raise DataError("only arrays of numbers are read")
        dtype = np.dtype(number_type.order + number_type.code)
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise DataError(f"an array of shape {shape} has {len(content)} bytes of content")
        self.value = np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


class _Reconstruct:
    """Replaces numpy's function that makes an empty array."""

    __slots__ = ()  # a pickle can set attributes of any object it gets

    def __call__(self, *_: object) -> _Array:
        return _Array()


def _encoder(budget: int) -> object:
    """Return a replacement of ``_codecs.encode``, which pickles for Python 2 use for bytes.

    It encodes at most *budget* characters in all: a pickle could encode one long text many times.
    """
    left = budget

    class Encode:
        __slots__ = ()

        def __call__(self, text: object, encoding: object = "latin1") -> bytes:
            nonlocal left
            if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
                raise DataError("texts are encoded as latin1 only")
            left -= len(text)
            if left < 0:
                raise DataError("the pickle makes more bytes than it holds")
            return text.encode("latin1")

    return Encode()


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        reconstruct = _Reconstruct()
        self.allowed: dict[tuple[str, str], object] = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _NumberType,
            ("_codecs", "encode"): _encoder(len(content)),
        }

    def find_class(self, module: str, name: str, /) -> object:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise DataError(
                f"refused: the pickle needs {module[:80]}.{name[:80]}; only plain values and numpy "
                "arrays are read. Do not use this file; fetch it again from its publisher"
            ) from None
