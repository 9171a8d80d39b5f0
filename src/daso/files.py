"""The files of a run folder: JSON, rows of JSON, atomic writes and locks."""

from __future__ import annotations

import contextlib
import csv
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import platform
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from daso.errors import DasoError, InUseError, RunError, in_line

Row = dict[str, Any]
CHECKSUM = "checksum"
"""Name of the checksum in an object or a row that has one; older runs have none."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; move what the block writes there to *path*, unless the block fails.

    At any moment *path* has either its old or its new content on disk. After a failure, the
    temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Flush a folder to disk: a power cut must not undo a move to it, or a new file in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot flush a folder.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through ``replacing``.

    Raises:
        RunError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    with reported(f"write {path}"), replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a ``printable`` text through ``replacing``; raise as ``write_atomically``."""
    write_atomically(path, printable(text).encode())


@contextlib.contextmanager
def reported(what: str, kind: type[DasoError] = RunError) -> Iterator[None]:
    """Turn an ``OSError`` of the block into an error: daso cannot *what*, such as "write PATH"."""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot {what}: {error.strerror or error}") from error


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]], **style: Any) -> str:
    """Return a table as CSV; *style* are options of ``csv.writer``."""
    file = io.StringIO()
    csv.writer(file, **style, lineterminator="\n").writerows([columns, *rows])
    return file.getvalue()


def leads_somewhere(path: Path) -> bool:
    """Whether a path exists; raise the error of one that may not be followed or read.

    ``Path.exists`` says of a link that leads to itself, and in newer Python of what lies below a
    folder without permission, that nothing is there.
    """
    try:
        is_folder = stat.S_ISDIR(path.expanduser().stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    if not is_folder and not os.access(path.expanduser(), os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return True


def make_folder(folder: Path) -> None:
    """Create a folder and those above it; raise a ``RunError`` if that fails."""
    if folder.is_file():
        raise RunError(f"{folder} is a file; name a folder")
    with reported(f"create {folder}"):
        folder.mkdir(parents=True, exist_ok=True)


def check_writable(folder: Path, cure: str = "choose another folder") -> None:
    """Refuse, before long work, a folder that cannot be written; leave nothing behind."""
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"cannot write into {folder}: {reason}; {cure}") from error


def try_lock(file: io.FileIO) -> bool:
    """Lock an open file until it is closed and write this process into it.

    Returns:
        False if another process holds the lock; ``lock_holder`` names it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    with contextlib.suppress(OSError):  # a full disk: the lock holds without its holder's name
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}\n".encode())
    return True


def lock_file(path: Path, in_use: Callable[[str], str]) -> io.FileIO:
    """Create a lock file if needed and lock it until the returned file is closed.

    Args:
        in_use: returns what to say if another process has it, given `` (123 on host)``.

    Raises:
        InUseError: another process holds it.
        RunError: its folder cannot be written, or the file system has no locks.
    """
    with reported(f"write into {path.parent}"):
        lock = path.open("ab+", buffering=0)
    try:
        if try_lock(lock):
            return lock
    except OSError as error:
        lock.close()
        raise RunError(f"cannot lock {path}: {error.strerror}") from error
    with lock:
        raise InUseError(in_use(f" ({lock_holder(lock) or 'unknown'})"))


def lock_holder(file: io.FileIO) -> str:
    """Return the process that wrote itself into a lock file: ``"123 on host"``, or ``""``."""
    file.seek(0)
    return file.read(200).decode(errors="replace").strip()


def append_line(path: Path, row: Row) -> None:
    """Append a row to a file as a line of JSON, with a checksum that ``read_rows`` checks.

    Raises:
        RunError: the file cannot be written, as on a full disk; it may end in a partial line.
    """
    with reported(f"write {path}"), path.open("ab") as file:
        file.write(to_line(seal(row)).encode())


def append_whole(file: io.FileIO, size: int, content: bytes) -> None:
    """Write *content* after the first *size* bytes of an unbuffered file, in place of what follows.

    It is flushed to disk, with the folder of a new file. If an ``OSError`` is raised, the file ends
    after these bytes.
    """
    file.truncate(size)
    left = memoryview(content)
    try:
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
        if not size:
            flush_folder(Path(str(file.name)).parent)
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(size)
        raise


def flush_file(path: Path) -> None:
    """Flush a file to disk after appending to it; raise a ``RunError`` if that fails."""
    with reported(f"write {path}"), path.open("ab") as file:
        os.fsync(file.fileno())


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in *folder*."""
    for leftover in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def seal(values: Row, name: str = CHECKSUM) -> Row:
    """Return an object with a checksum of the others, called *name*; NaN becomes null."""
    plain_values = json.loads(json.dumps(plain(values)))
    plain_values.pop(name, None)
    return {**plain_values, name: _checksum(plain_values)}


def unseal(values: Row, name: str = CHECKSUM) -> Row:
    """Return an object without its checksum, if it has one.

    Raises:
        ValueError: the checksum is that of other values, or has another name.
    """
    others = {key: value for key, value in values.items() if key != name}
    *_, (last, value) = others.items() or [(name, None)]
    before = {key: value for key, value in others.items() if key != last}
    if name not in values and value == _checksum(before):
        raise ValueError(f"its checksum is called {last!r}: it is damaged, or was edited")
    if values.get(name, _checksum(others)) != _checksum(others):
        raise ValueError("its checksum is that of other content: it is damaged, or was edited")
    return others


def _checksum(values: Row) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def save_arrays(path: Path, arrays: Mapping[str, Any], name: str, about: Row) -> None:
    """Write NumPy arrays as safetensors, atomically, with a checksum that ``read_arrays`` checks.

    *about* is a JSON object, kept in the file's header at *name*.
    """
    import numpy as np
    import safetensors.numpy

    arrays = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
    about = json.loads(json.dumps(plain(about)))
    sealed = about | {CHECKSUM: _digest(arrays, about)}
    # One text: safetensors writes several in any order.
    write_atomically(path, safetensors.numpy.save(arrays, {name: json.dumps(sealed)}))


def read_arrays(path: Path, name: str) -> tuple[dict[str, Any], Row]:
    """Read what ``save_arrays`` wrote; older files have no checksum.

    Raises:
        OSError, ValueError: the file is missing or damaged.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get(name, "null"))
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(about, dict):
        raise ValueError(f"its header has no {name}")
    checksum = about.pop(CHECKSUM, None)
    if checksum not in (None, _digest(arrays, about)):
        raise ValueError("wrong checksum")
    return arrays, about


def _digest(arrays: Mapping[str, Any], about: Row) -> str:
    digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        value = arrays[name]
        digest.update(repr((name, value.dtype.str, value.shape)).encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def save_json(path: Path, value: Any) -> None:
    """Write *value* as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def save_sealed(path: Path, values: Row) -> None:
    """Write an object as ``save_json`` does, with a checksum that ``read_json`` checks."""
    save_json(path, seal(values))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a run folder.

    Raises:
        RunError: the file is missing, is not a JSON object, or its checksum is wrong.
    """
    try:
        value = json.loads(path.read_bytes())
        value = unseal(value) if isinstance(value, dict) else value
    except FileNotFoundError as error:
        raise RunError(f"{path.parent} is not a run folder: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds {type(value).__name__}, not an object")
    return value


def printable(text: str) -> str:
    r"""Return a name as valid Unicode: bytes that are not UTF-8 become ``\\xe9`` and the like.

    Python holds such bytes of a file's name as halves of characters, which nothing can encode.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # other halves, from JSON
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def flatten(values: Mapping[str, Any], prefix: str = "") -> Row:
    """Return nested values by dotted name: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat: Row = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def plain(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by None, recursively."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_line(row: Row) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(plain(row), allow_nan=False) + "\n"


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file; none if it is missing. A last line without an end is skipped.

    Raises:
        RunError: another line is damaged, or the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        try:
            row = unseal(json.loads(line))
            if not {"event", "step"} <= row.keys():
                raise ValueError("not a row with an event and a step")
            rows.append(row)
        except (ValueError, AttributeError, RecursionError) as error:
            if number < len(lines) or line.endswith(b"\n"):
                cure = "remove the line to go on without its numbers"
                raise RunError(
                    f"{path}, line {number}, is damaged: {in_line(error)}; {cure}"
                ) from error
    return rows
