"""The journal of ``daso label``: one line of JSON for each action, kept beside the data."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import json
import threading
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from daso.data.listing import JOURNAL
from daso.errors import RunError, in_line
from daso.files import append_whole, check_writable, lock_file, reported, seal, to_line, unseal

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
        taken: number of entries of which decisions count; later ones only say where files are.
        checksum: hexadecimal, of these entries' lines.
        cut_off: bytes of an incomplete last line, which is no entry.
    """

    cut_off = 0

    def __init__(self, path: Path, entries: Iterable[Entry] = (), checksum: str = "") -> None:
        self.path, self.checksum = path, checksum
        self._lock = threading.RLock()
        self._entries = list(entries)
        self.taken = len(self._entries)
        self._held: io.FileIO | None = None
        self._size, self._rest, self._ends = 0, 0, True  # bytes; whether the last line ends

    @classmethod
    def read(cls, path: Path, first: int | None = None) -> Self:
        """Read a journal without locking it; one that does not exist is empty.

        Args:
            first: take only so many entries, as a run did that is resumed, and of later ones those
                that say where files were sorted since; None: all.

        Raises:
            RunError: a line other than the last is damaged, or the file cannot be read.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
        *lines, rest = content.split(b"\n")
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(rest), dict):  # complete: an editor may have left it so
                lines, rest = [*lines, rest], b""
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        kept = [line for _, line in numbered[:first]]
        entries = [_parse(line, i, path, at) for i, (at, line) in enumerate(numbered, 1)]
        taken = [*entries[:first], *_sorting(entries[len(kept) :], entries)]
        journal = cls(path, taken, hashlib.blake2b(b"\n".join(kept), digest_size=16).hexdigest())
        journal.taken = len(kept)
        journal._size, journal._rest = len(content) - len(rest), len(rest)
        journal.cut_off = len(rest)
        journal._ends = content[: journal._size].endswith(b"\n") or not journal._size
        return journal

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a journal for writing; a line that a killed process left incomplete is cut off.

        The file is created by the first entry.

        Raises:
            InUseError: another process has it open.
            RunError: see ``read``; or the folder cannot be written.
        """
        check_writable(
            path.parent, "labels are kept beside the data; label a copy that can be written"
        )
        held = lock_file(
            path.with_name(f".{path.name}.lock"),
            lambda who: f"{path} is open in another page{who}; close that one first",
        )
        try:
            journal = cls.read(path)
            journal._held = held
            if path.exists():
                journal._write("" if journal._ends else "\n")
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
            first = len(self._entries) + 1
            time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            entries = [
                Entry(number, action, time=time, **values)
                for number, (action, values) in enumerate(actions, first)
            ]
            self._write("".join(map(_line, entries)))
            self._entries += entries
            return entries

    def of_request(self, key: str | None) -> list[Entry]:
        """Return the entries of a request, of which a kill may have left only the first ones."""
        with self._lock:
            return [] if key is None else [entry for entry in self._entries if entry.key == key]

    def undo(self, key: str | None = None) -> Entry | None:
        """Undo the person's newest action that is not undone; return it.

        None if there is none, or if the files have been sorted since: that is undone first.
        """
        with self._lock:
            latest = [entry for entry in self.in_force() if entry.action in (*PERSONAL, "apply")]
            if not latest or latest[-1].action == "apply":
                return None
            told = {"image": latest[-1].image, "round": latest[-1].round, "key": key}
            self.append("undo", undoes=latest[-1].number, **told)
            return latest[-1]

    def decisions(self, there: Container[str] | None = None) -> dict[str, Entry]:
        """Return the entry in force of every image that is decided, in the order of time.

        Args:
            there: see ``in_force``.
        """
        standing: dict[str, Entry] = {}
        for entry in self.in_force(there):
            if entry.action in DECISIONS and entry.image is not None:
                standing.pop(entry.image, None)
                standing[entry.image] = entry
        return standing

    def about_images(self) -> dict[str, list[Entry]]:
        """Return a person's entries in force by image, in the order of time."""
        about: dict[str, list[Entry]] = {}
        for entry in self.in_force():
            if entry.action in PERSONAL and entry.image is not None:
                about.setdefault(entry.image, []).append(entry)
        return about

    def placed(self) -> list[Entry]:
        """Return the entries of the files that were sorted and are not put back."""
        return [entry for entry in self.in_force() if entry.action == "apply"]

    def applied(self) -> dict[int, Entry]:
        """Return the entries of sorted files by the number of the decision that was applied."""
        found = {int((entry.details or {})["entry"]): entry for entry in self.placed()}
        return {number: entry for number, entry in found.items() if number}

    def close(self) -> None:
        """Let other processes write the journal; this one can still be looked at."""
        with self._lock:
            if self._held is not None:
                self._held.close()
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def in_force(self, there: Container[str] | None = None) -> list[Entry]:
        """Return the entries that are not undone.

        What was decided about a file after it was sorted names the place where it is since then.

        Args:
            there: names of images; a file that is no longer where it was sorted to keeps the name
                by which it was decided. None: all are there.
        """
        with self._lock:
            undone = {entry.undoes for entry in self._entries if entry.action == "undo"}
            alive = (entry for entry in self._entries if entry.number not in undone)
            return list(_about_sorted(alive, there))

    def names(self) -> set[str]:
        """Return the names of all images in the entries, and the places of sorted files."""
        with self._lock:
            placed = {place_of(entry) for entry in self._entries if entry.action == "apply"}
            return placed | {entry.image for entry in self._entries if entry.image is not None}

    def _write(self, line: str) -> None:
        if self._held is None:
            raise RunError(f"{self.path} is not open for writing")
        with reported(f"write {self.path}"), self.path.open("ab", buffering=0) as file:
            if file.tell() != self._size + self._rest:
                raise RunError(f"{self.path} was changed by another program; start again")
            append_whole(file, self._size, line.encode())
        self._size, self._rest = self._size + len(line), 0


def labels_in_force(journal: Journal) -> set[str]:
    """Return the classes of all labels in force that no folder of sorted files has."""
    sorted_, decisions = journal.applied(), journal.decisions().values()
    return {e.label for e in decisions if e.label is not None and e.number not in sorted_}


def place_of(entry: Entry) -> str:
    """Return where a file was sorted to."""
    return str((entry.details or {})["to"])


def _about_sorted(entries: Iterable[Entry], there: Container[str] | None) -> Iterator[Entry]:
    """Let entries about a file that an earlier one of these has sorted name its new place."""
    sorted_to: dict[str | None, Entry] = {}
    for entry in entries:
        if entry.action == "apply":
            sorted_to.pop(place_of(entry), None)  # of a file that was there before
            if entry.image != place_of(entry):
                sorted_to[entry.image] = entry
        elif entry.action in PERSONAL:
            image = entry.image
            while (copy := sorted_to.get(image)) and entry.checksum in (None, copy.checksum):
                image = place_of(copy)
            yield replace(entry, image=image) if there is None or image in there else entry
            continue
        yield entry


def _sorting(some: Iterable[Entry], entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield those of some entries that record where a file was sorted or put back."""
    for entry in some:
        undone = entry.undoes is not None and entries[entry.undoes - 1].action == "apply"
        if entry.action == "apply" or undone:
            yield entry


def _line(entry: Entry) -> str:
    values = {key: value for key, value in asdict(entry).items() if value is not None}
    return to_line(seal(values, LINE_CHECKSUM))


def _parse(line: bytes, number: int, path: Path, at: int) -> Entry:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("not an object")
        unseal(row, LINE_CHECKSUM)
        entry = Entry(**{key: value for key, value in row.items() if key in KNOWN})
        action, undoes = entry.action, entry.undoes
        details = entry.details if isinstance(entry.details, dict) else {}
        tells_places = type(details.get("entry")) is int and isinstance(details.get("to"), str)
        faults = {
            f"unknown action {str(action)[:40]!r}": action not in ACTIONS,
            f"has the number {entry.number!r:.20}, not {number}": entry.number != number,
            f"one of {', '.join(TEXTS)} is not a text": not all(
                isinstance(getattr(entry, name), str | None) for name in TEXTS
            ),
            "names no image": action in DECISIONS and entry.image is None,
            "names no class": action in ("label", "keep", "class") and not entry.label,
            "details is not an object": not isinstance(entry.details, dict | None),
            f"undoes {undoes!r:.20}, which is no earlier entry": action == "undo"
            and (type(undoes) is not int or not 0 < undoes < number),
            "does not say which file was sorted, where and how": action == "apply"
            and not (tells_places and details.keys() >= {"how", "created", "new_folder"}),
        }
        if found := [fault for fault, is_there in faults.items() if is_there]:
            raise ValueError(found[0])
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path}, line {at}, is damaged: {in_line(error)}; correct the line and take its "
            f"{LINE_CHECKSUM} out, or restore the file"
        ) from error
    return entry
