"""The journal of ``daso label``: one line of JSON for each action, kept beside the data."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from daso.data.listing import JOURNAL
from daso.errors import InUseError, RunError
from daso.files import check_writable, lock_holder, seal, to_line, try_lock, unseal

Action = Literal["label", "none", "skip", "keep", "class", "undo", "round", "apply"]
ACTIONS = get_args(Action)
PERSONAL = ("label", "none", "skip", "keep", "class")
"""Actions of a person, which can be undone."""
DECISIONS = ("label", "none", "keep")


@dataclass(frozen=True)
class Entry:
    """One action, a line of the journal.

    Attributes:
        number: 1, 2, ... in the file.
        action: ``label`` gives an image its class, ``keep`` confirms the one it has, ``none`` says
            that it is of none of the classes; ``skip`` decides nothing; ``class`` adds a class;
            ``undo`` takes an earlier entry back; ``round`` records a finished training; ``apply``
            records that a file was sorted into the folder of its class.
        image: see ``names.py``.
        checksum: hexadecimal, 16 bytes, of the encoded image, or of the pixels of an array.
        label: the class; of ``keep`` the confirmed one.
        undoes: number of the entry that is undone.
        guess, probability: what the model said.
        round: trainings from the page so far.
        time: UTC, ISO 8601.
        seconds: that the person took.
        details: of a round, its numbers; of ``apply``, the places of the file.
        key: of the request that asked for it, by which its repetition is known.
    """

    number: int
    action: Action
    image: str | None = None
    checksum: str | None = None
    label: str | None = None
    undoes: int | None = None
    guess: str | None = None
    probability: float | None = None
    round: int = 0
    time: str = ""
    seconds: float | None = None
    details: dict[str, Any] | None = None
    key: str | None = None


TEXTS = ("image", "checksum", "label", "guess", "key")
KNOWN = {field.name for field in fields(Entry)}
LINE_CHECKSUM = "line_checksum"
"""Name of the checksum of a line, which lines of older versions lack."""


def journal_path(source: Path) -> Path:
    """Return the place of a data set's journal: in its folder, or beside its file."""
    return source / JOURNAL if source.is_dir() else source.with_name(f"{source.name}.{JOURNAL}")


class Journal:
    """What was decided in the page, in the order of time; append-only.

    ``read`` gives a journal to look at, ``open`` one to write, which no other process can write
    meanwhile. All methods may be called from several threads.

    Attributes:
        path: of the file.
        checksum: hexadecimal, of the lines that were read.
        cut_off: bytes of an incomplete last line, which is no entry.
    """

    cut_off = 0

    def __init__(self, path: Path, entries: Iterable[Entry] = (), checksum: str = "") -> None:
        self.path, self.checksum = path, checksum
        self._lock = threading.RLock()
        self._entries: list[Entry] = []
        self._open: list[Entry] = []  # actions of the person that are not undone
        self._applied: dict[int, Entry] = {}  # not undone, by number
        self._history: dict[str, list[Entry]] = {}  # by image, not undone
        self._standing: dict[str, Entry] = {}  # the entry in force, by image
        self._classes: dict[int, str] = {}
        self._keys: set[str] = set()
        self._file: io.FileIO | None = None
        self._held: io.FileIO | None = None
        self._size = 0
        for entry in entries:
            self._take(entry)

    @classmethod
    def read(cls, path: Path, first: int | None = None) -> Self:
        """Read a journal without locking it; one that does not exist is empty.

        Args:
            first: take only so many entries, as a run did that is resumed; None: all.

        Raises:
            RunError: a line other than the last is damaged, or the file cannot be read.
        """
        lines, _, _, rest = _lines(path)
        kept = lines if first is None else lines[:first]
        entries = [_parse(line, number, path) for number, line in enumerate(kept, 1)]
        checksum = hashlib.blake2b(b"\n".join(kept), digest_size=16).hexdigest()
        journal = cls(path, entries, checksum)
        journal.cut_off = rest
        return journal

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal for writing; a line that a killed process left incomplete is cut off.

        The file is created by the first entry.

        Raises:
            InUseError: another process has it open.
            RunError: see ``read``; or the folder cannot be written.
        """
        check_writable(path.parent)
        held = _hold(path)
        try:
            journal = cls.read(path)
            _, size, ended, _ = _lines(path)
            journal._held, journal._size = held, size
            if path.exists():
                journal._begin()
            if not ended:
                journal._write("\n")
        except BaseException:
            held.close()
            raise
        return journal

    @property
    def entries(self) -> Sequence[Entry]:
        return self._entries

    def append(self, action: Action, **values: Any) -> Entry:
        """Write an entry to the disk and return it; number and time are added.

        Raises:
            RunError: the disk is full or the file cannot be written; then nothing has changed.
        """
        return self.extend([(action, values)])[0]

    def extend(self, actions: Iterable[tuple[Action, Mapping[str, Any]]]) -> list[Entry]:
        """Write several entries at once, as ``append`` does one: all of them or none."""
        with self._lock:
            first, time = len(self._entries) + 1, _now()
            entries = [
                Entry(number, action, time=time, **values)
                for number, (action, values) in enumerate(actions, first)
            ]
            self._write("".join(map(_line, entries)))
            for entry in entries:
                self._take(entry)
            return entries

    def has(self, key: str) -> bool:
        """Whether there is an entry of a request."""
        return key in self._keys

    def undo(self, key: str | None = None) -> Entry | None:
        """Undo the person's newest action that is not undone; return it.

        None if there is none, or if the files have been sorted since: that is undone first.
        """
        with self._lock:
            if not self._open:
                return None
            entry = self._open[-1]
            if self._applied and entry.number < max(self._applied):
                return None
            told = {"image": entry.image, "round": entry.round, "key": key}
            self.append("undo", undoes=entry.number, **told)
            return entry

    def decisions(self) -> dict[str, Entry]:
        """Return the entry in force of every image that is decided, in the order of time."""
        with self._lock:
            standing = list(self._standing.items())
        return dict(sorted(standing, key=lambda item: item[1].number))

    def decision(self, image: str) -> Entry | None:
        """Return the entry in force of one image."""
        with self._lock:
            return self._standing.get(image)

    def skipped(self) -> set[str]:
        """Return the undecided images that were skipped."""
        with self._lock:
            skipped = (image for image, some in self._history.items() if some)
            return {image for image in skipped if image not in self._standing}

    def classes(self) -> tuple[str, ...]:
        """Return the classes that were added in the page, in the order of time."""
        with self._lock:
            return tuple(dict.fromkeys(self._classes.values()))

    def placed(self) -> list[Entry]:
        """Return the entries of the files that were sorted and are not put back."""
        with self._lock:
            return list(self._applied.values())

    def applied(self) -> dict[int, Entry]:
        """Return the entries of sorted files by the number of the decision that was applied."""
        found = {int((entry.details or {})["entry"]): entry for entry in self.placed()}
        return {number: entry for number, entry in found.items() if number}

    def close(self) -> None:
        """Let other processes write the journal; this one can still be looked at."""
        with self._lock:
            for file in (self._file, self._held):
                if file is not None:
                    file.close()
            self._file = self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, entry: Entry) -> None:
        self._entries.append(entry)
        if entry.key is not None:
            self._keys.add(entry.key)
        if entry.action == "undo":
            undone = self._entries[(entry.undoes or 0) - 1]
            self._applied.pop(undone.number, None)
            self._classes.pop(undone.number, None)
            if self._open and self._open[-1] == undone:
                self._open.pop()
            elif undone in self._open:
                self._open.remove(undone)
            if undone.image is not None:
                history = self._history.get(undone.image, [])
                if undone in history:
                    history.remove(undone)
                self._settle(undone.image)
            return
        if entry.action in PERSONAL:
            self._open.append(entry)
        if entry.action == "apply":
            self._applied[entry.number] = entry
        elif entry.action == "class":
            self._classes[entry.number] = str(entry.label)
        elif entry.image is not None and entry.action != "round":
            self._history.setdefault(entry.image, []).append(entry)
            self._settle(entry.image)

    def _settle(self, image: str) -> None:
        history = reversed(self._history.get(image, ()))
        standing = next((entry for entry in history if entry.action in DECISIONS), None)
        if standing is None:
            self._standing.pop(image, None)
        else:
            self._standing[image] = standing

    def _begin(self) -> None:
        """Open the file, cut off what is incomplete, and end the last line."""
        is_new = not self.path.exists()
        self._file = self.path.open("ab", buffering=0)
        if self._file.tell() != self._size:
            self._file.truncate(self._size)
        if is_new:
            _flush_folder(self.path.parent)

    def _write(self, line: str) -> None:
        if self._held is None:
            raise RunError(f"{self.path} is not open for writing")
        try:
            if self._file is None:
                self._begin()
            assert self._file is not None
            content = memoryview(line.encode())
            try:
                while content:
                    content = content[self._file.write(content) :]
                os.fsync(self._file.fileno())
            except OSError:
                # The next entry must not follow half a line.
                with contextlib.suppress(OSError):
                    self._file.truncate(self._size)
                with contextlib.suppress(OSError):
                    self._file.close()
                self._file = None
                raise
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._size += len(line)


def labels_in_force(journal: Journal) -> set[str]:
    """Return the classes of all labels in force."""
    return {entry.label for entry in journal.decisions().values() if entry.label is not None}


def _line(entry: Entry) -> str:
    values = {key: value for key, value in asdict(entry).items() if value is not None}
    return to_line(seal(values, LINE_CHECKSUM))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _lines(path: Path) -> tuple[list[bytes], int, bool, int]:
    """Return a file's complete lines, their bytes, whether the last one ends, and the bytes left.

    A line without an end counts if it is complete: an editor may have left it so.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0, True, 0
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
    size = content.rfind(b"\n") + 1
    lines, rest = content[:size].split(b"\n")[:-1], content[size:]
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(json.loads(rest), dict):
            return [*lines, rest], len(content), False, 0
    return lines, size, True, len(rest)


def _parse(line: bytes, number: int, path: Path) -> Entry:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("not an object")
        unseal(row, LINE_CHECKSUM)
        entry = Entry(**{key: value for key, value in row.items() if key in KNOWN})
        if entry.action not in ACTIONS:
            raise ValueError(f"unknown action {str(entry.action)[:40]!r}")
        if entry.number != number:
            raise ValueError(f"has the number {entry.number!r:.20}, not {number}")
        texts = {name: getattr(entry, name) for name in TEXTS}
        if wrong := [n for n, text in texts.items() if not isinstance(text, str | None)]:
            raise ValueError(f"{wrong[0]} is not a text")
        if entry.action in DECISIONS and entry.image is None:
            raise ValueError("names no image")
        if entry.action in ("label", "keep", "class") and not entry.label:
            raise ValueError("names no class")
        if not isinstance(entry.details, dict | None):
            raise ValueError("details is not an object")
        if entry.action == "undo" and (
            type(entry.undoes) is not int or not 0 < entry.undoes < number
        ):
            raise ValueError(f"undoes {entry.undoes!r:.20}, which is no earlier entry")
        details = entry.details or {}
        if entry.action == "apply" and (
            type(details.get("entry")) is not int or not isinstance(details.get("to"), str)
        ):
            raise ValueError("names no entry that was applied, or no place")
        if entry.action == "apply" and not {"how", "created", "new_folder"} <= details.keys():
            raise ValueError("does not say how a file was sorted")
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path}, line {number}, is damaged: {error}; correct the line and take its "
            f"{LINE_CHECKSUM} out, or restore the file"
        ) from error
    return entry


def _hold(path: Path) -> io.FileIO:
    """Keep other processes from writing a journal until the returned file is closed."""
    try:
        lock = path.with_name(f".{path.name}.lock").open("ab+", buffering=0)
    except OSError as error:
        raise RunError(f"cannot write into {path.parent}: {error.strerror}") from error
    try:
        if try_lock(lock):
            return lock
    except OSError as error:
        lock.close()
        raise RunError(f"cannot lock {path}: {error.strerror}") from error
    with lock:
        holder = lock_holder(lock) or "unknown"
    raise InUseError(f"{path} is open in another page (process {holder}); close that one first")


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot flush a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
