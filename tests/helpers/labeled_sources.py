"""Labels of a source, by the pixels of its images; and its page, which sorts the files."""

from __future__ import annotations

from pathlib import Path

from daso.data.journal import Journal
from daso.data.labeling import LabelingData, open_for_labeling, sort_files, unsort_files
from daso.data.labeling.sorting import How
from daso.data.source import Source

LABELS: dict[int, str | None] = {1: "fox", 2: "cat", 5: "ape", 9: None, 7: "cat"}


def labels_of(source: Source) -> dict[str, str]:
    """Return the class of every labeled image by its pixels."""
    images = source.train
    return {
        digest.tobytes().hex(): source.class_names[label]
        for digest, label in zip(images.digests, images.labels, strict=True)
    }


def unlabeled_of(source: Source) -> set[str]:
    pool = source.unlabeled
    return set() if pool is None else {digest.tobytes().hex() for digest in pool.digests}


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file but those of daso label, by path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "daso-labels" not in path.name
    }


def opened(source: Path) -> tuple[Journal, LabelingData]:
    data = open_for_labeling(str(source))
    return Journal.open(data.journal), data


def sort(folder: Path, how: How = "copy") -> None:
    with opened(folder)[0] as journal:
        sort_files(journal, open_for_labeling(str(folder)), how)


def unsort(folder: Path) -> None:
    with opened(folder)[0] as journal:
        unsort_files(journal, open_for_labeling(str(folder)))
