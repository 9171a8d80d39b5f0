"""Sort labeled files into the folders of their classes, so that no journal is needed any more.

A plan is written first, then each file is placed and entered into the journal: after a kill the
same command goes on where it stopped, and every file can be put back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from daso.data.class_names import is_missing
from daso.data.formats.folder import labeled_folder
from daso.data.images.decode import SUFFIXES
from daso.data.journal.entries import DECISIONS, Action, Entry, Journal, place_of
from daso.data.labeling.opened import LabelingData
from daso.data.labeling.placing import place, put_back, same_content
from daso.data.listing import is_hidden
from daso.data.part_names import part_called
from daso.errors import DataError, OptionError, RunError, same_name
from daso.files import printable, read_json, save_sealed

How = Literal["copy", "link", "move"]
LONGEST_NAME = 255
"""Bytes of a folder's name in the usual file systems."""


@dataclass(frozen=True)
class Step:
    """One file to place; paths are relative to the data's folder.

    Attributes:
        entry: number of the decision; 0: an undecided image of a folder without parts.
        created: whether the target is new; otherwise a file of the same content is there.
        new_folder: whether the target's folder is new.
        was: the class of the file's folder, which was corrected; None: it was unlabeled.
    """

    entry: int
    image: str
    label: str | None
    checksum: str
    to: str
    how: How
    created: bool
    new_folder: bool
    was: str | None


def plan_path(journal: Journal) -> Path:
    """Return the place of the plan, which is there while files are being sorted."""
    return journal.path.with_name(f".{journal.path.name}.apply")


def sort_files(journal: Journal, data: LabelingData, how: How = "copy") -> list[str]:
    """Sort the labeled files into ``labeled/<class>/``; return notes.

    Files whose class was corrected are moved to the other class's folder. In a folder without
    parts the undecided images go to ``unlabeled/``; those of no class stay where they are.

    Args:
        journal: open for writing.
        how: whether unlabeled files are copied, linked or moved.

    Raises:
        OptionError: the source is no folder of image files.
        DataError: a class's name cannot be the name of a folder.
        RunError: a file cannot be written; the command can be repeated.
    """
    base = _folder_of(data)
    plan = plan_path(journal)
    notes: list[str] = []
    if plan.exists():
        notes.append(f"{plan}: the sorting that was interrupted is completed first")
        steps = _read_plan(plan)
        for step in steps:
            _require_own(data, base, step.image, step.to, plan)
    else:
        steps = list(_plan(journal, data, base, how))
        if not steps:
            return [f"{journal.path}: no file is to be sorted"]
        save_sealed(plan, {"files": [asdict(step) for step in steps]})
    _carry_out(journal, base, steps, notes)
    plan.unlink()
    return notes


def unsort_files(journal: Journal, data: LabelingData) -> list[str]:
    """Put the files back that ``sort_files`` has placed, the last first; return notes.

    What was decided about a sorted file since then is a decision about the file put back.
    """
    base = _folder_of(data)
    # Those of an interrupted sorting are completed, so that they can be put back like others.
    notes = sort_files(journal, data) if plan_path(journal).exists() else []
    placed = journal.placed()
    applied = [entry for entry in journal.entries if entry.action == "apply"]
    for entry in applied:
        _require_own(data, base, str(entry.image), place_of(entry), journal.path)
    about = journal.about_images()
    for entry in reversed(placed):
        details = entry.details or {}
        try:
            note = put_back(
                base / str(entry.image),
                base / details["to"],
                details["how"],
                str(entry.checksum),
                created=bool(details["created"]),
            )
        except OSError as error:
            raise RunError(
                f"cannot put {entry.image} back: {error.strerror or error}; repeat the command"
            ) from error
        notes += [f"{details['to']}: {note}"] if note else []
        told: list[tuple[Action, dict[str, Any]]] = []
        undone = [entry]
        since = about.get(details["to"], []) if not note else []
        if since:
            known = about.setdefault(str(entry.image), [])
            told = [_told_of(str(entry.image), one) for one in _standing(known, since)]
            if not os.path.lexists(base / details["to"]):
                undone += since
        written = journal.extend([*told, *(("undo", _undoing(one)) for one in undone)])
        if told:
            known += written[: len(told)]
    # Also those that an earlier call had emptied when it was killed.
    folders = {
        (base / entry.details["to"]).parent
        for entry in applied
        if entry.details and entry.details.get("new_folder")
    }
    for folder in sorted(folders, key=lambda one: -len(one.parts)):
        for one in (folder, *folder.parents):
            if one == base:
                break
            with contextlib.suppress(OSError):  # something else lies in it
                one.rmdir()
    return notes or [f"{len(placed):,} files were put back"]


def _standing(known: Sequence[Entry], since: Sequence[Entry]) -> list[Entry]:
    """Return the last decision of *since*, and a skip after it, if they are newer than *known*."""
    decisions = [entry for entry in since if entry.action in DECISIONS][-1:]
    standing = decisions + [entry for entry in since[-1:] if entry.action == "skip"]
    return [entry for entry in standing if not known or known[-1].number < entry.number]


def _told_of(image: str, since: Entry) -> tuple[Action, dict[str, Any]]:
    """Return the action that says of a file put back what was said of it where it was sorted."""
    action: Action = "label" if since.action == "keep" else since.action
    told = {"label": since.label, "checksum": since.checksum, "round": since.round}
    return action, {"image": image, **told}


def _undoing(entry: Entry) -> dict[str, Any]:
    return {"undoes": entry.number, "image": entry.image, "round": entry.round}


def _folder_of(data: LabelingData) -> Path:
    files = all(pool.from_files for pool in data.pools.values())
    if data.base is None or not data.source.is_dir() or not files:
        raise OptionError(
            f"{data.source}: only files in a folder can be sorted; --export FILE.csv writes the "
            "labels of other data"
        )
    return data.base


def _require_own(data: LabelingData, base: Path, image: str, to: str, where: Path) -> None:
    """Refuse paths that leave the data set: a plan or a journal may have come with it."""
    real = os.path.realpath(base)
    tops = [real, *(os.path.realpath(folder) for folder in data.reading.folders.values())]
    for name, allowed in ((image, tops), (to, [real])):
        path = os.path.normpath(Path(real, name)) if "\0" not in name else ""
        inside = any(path.startswith(f"{top}{os.sep}") for top in allowed)
        if not inside or Path(path).suffix.lower() not in SUFFIXES:
            raise RunError(f"{where}: {name[:200]!r} is no image of {base}; the file is damaged")


def _plan(journal: Journal, data: LabelingData, base: Path, how: How) -> Iterator[Step]:
    labeled, flat = labeled_folder(base, data.reading.folders)
    places = data.places()
    targets = _Targets(base, labeled)
    decisions, applied = journal.decisions(places), journal.applied()
    for image, entry in decisions.items():
        if entry.label is None or entry.number in applied or image not in places:
            continue
        part, index = places[image]
        was = data.class_names[int(data.pools["train"].labels[index])] if part == "train" else None
        if was is not None and same_name(entry.label, data.class_names) == was:
            continue
        try:
            checksum = data.checksum(part, index)
        except DataError:
            continue
        if entry.checksum in (None, checksum):
            where = targets.of_class(entry.label)
            to, created, fresh = targets.choose(where, PurePosixPath(image).name, checksum)
            mode: How = how if was is None else "move"
            yield Step(entry.number, image, entry.label, checksum, to, mode, created, fresh, was)
    for image, (part, index) in places.items() if flat else ():
        if part == "train" or image in decisions:
            continue
        with contextlib.suppress(DataError):
            checksum = data.checksum(part, index)
            where = base / "unlabeled" / PurePosixPath(image).parent
            to, created, fresh = targets.choose(where, PurePosixPath(image).name, checksum)
            yield Step(0, image, None, checksum, to, how, created, fresh, None)


class _Targets:
    """Chooses places for files: none is taken twice, and nothing is overwritten."""

    def __init__(self, base: Path, labeled: Path) -> None:
        self.base, self.labeled = base, labeled
        self.taken: dict[Path, str] = {}
        self.folders = {
            printable(entry.name): entry
            for entry in (labeled.iterdir() if labeled.is_dir() else ())
            if entry.is_dir()
        }

    def of_class(self, label: str) -> Path:
        known = self.folders.get(same_name(label, self.folders))
        if known is not None:
            return known
        if is_missing(label):
            what = "reads like a missing label; give its images another one"
            raise DataError(f"class {label!r} {what}")
        is_part = self.labeled == self.base and part_called(label) is not None
        too_long = len(os.fsencode(label)) > LONGEST_NAME
        if is_part or too_long or is_hidden(label) or "/" in label or "\0" in label:
            raise DataError(
                f"class {label[:80]!r} cannot be the name of a folder (hidden, with a slash, "
                "too long or a part of the data); use --export FILE.csv"
            )
        alike = [name for name in self.folders if name.casefold() == label.casefold()]
        if alike and (self.labeled / label).exists():
            raise DataError(
                f"class {label!r}: the file system takes it for the folder {alike[0]!r}; rename one"
            )
        return self.labeled / label

    def choose(self, folder: Path, name: str, checksum: str) -> tuple[str, bool, bool]:
        """Return a path for a file, whether it is new, and whether its folder is."""
        stem, dot, ending = name.rpartition(".")
        number = 1
        while True:
            file = folder / (name if number == 1 else f"{stem}-{number}{dot}{ending}")
            if file in self.taken or os.path.lexists(file):
                taken = self.taken.get(file)
                if taken == checksum or (taken is None and same_content(file, checksum)):
                    return os.path.relpath(file, self.base), False, False
                number += 1
                continue
            self.taken[file] = checksum
            return os.path.relpath(file, self.base), True, not folder.exists()


def _carry_out(journal: Journal, base: Path, steps: list[Step], notes: list[str]) -> None:
    done = {(entry.image, (entry.details or {})["entry"]) for entry in journal.placed()}
    count = 0
    for step in steps:
        if (step.image, step.entry) in done:
            continue
        source, target = base / step.image, base / step.to
        try:
            there = same_content(target, step.checksum)
            if not there and not same_content(source, step.checksum):
                notes.append(f"{step.image}: has changed or is gone, and was not sorted")
                continue
            place(source, target, step.how, step.checksum)
        except OSError as error:
            raise RunError(
                f"cannot sort {step.image} into {step.to}: {error.strerror or error}; repeat the "
                "command to go on"
            ) from error
        details = asdict(step)
        told = {name: details.pop(name) for name in ("image", "label", "checksum")}
        journal.append("apply", **told, details=details)
        count += 1
    sorted_ = "1 file was" if count == 1 else f"{count:,} files were"
    notes.append(f"{sorted_} sorted; --apply --undo undoes it")


def _read_plan(path: Path) -> list[Step]:
    try:
        steps = [Step(**step) for step in read_json(path)["files"]]
    except (RunError, TypeError, KeyError) as error:
        reason = str(error).removeprefix(f"{path} cannot be read: ")
        raise RunError(f"{path} cannot be read: {reason}; remove it to plan anew") from error
    for step in steps:
        are_texts = all(isinstance(text, str) for text in (step.image, step.to, step.checksum))
        if not are_texts or type(step.entry) is not int or step.how not in get_args(How):
            raise RunError(f"{path} cannot be read: a step is damaged; remove it to plan anew")
    return steps
