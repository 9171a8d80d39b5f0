"""Say in words how the images of a run differ from those of another."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from daso.files import Row

POOLS = {
    "labeled": "labels",
    "unlabeled": "unlabeled images",
    "holdout": "held-out labels",
    "test": "test images",
}
MOST_NAMED = 8
"""Classes whose numbers are told."""


def describe_changes(before: Row, now: Row, pools: Collection[str] = tuple(POOLS)) -> list[str]:
    """Return what differs between two ``data.json``, such as "22 -> 26 labels (emu 4 -> 8)".

    [] if both runs saw the same images with the same labels, in the same split.

    Args:
        pools: that are compared.
    """
    changes = []
    names, others = before.get("class_names") or [], now.get("class_names") or []
    if names != others:
        gone, new = ([n for n in a if n not in b] for a, b in ((names, others), (others, names)))
        parts = [f"{sign} {', '.join(some)}" for sign, some in (("without", gone), ("with", new))]
        kept = [part for part, some in zip(parts, (gone, new), strict=True) if some]
        changes.append(f"other classes ({'; '.join(kept) or 'in another order'})")
    given = [(run.get("journal") or {}).get("labels", 0) for run in (before, now)]
    if given[0] != given[1]:
        changes.append(f"{given[0]:,} -> {given[1]:,} labels of daso label")
    fingerprints = [run.get("images_fingerprints") or {} for run in (before, now)]
    for pool in pools:
        noun = POOLS[pool]
        numbers = [_number(run, pool) for run in (before, now)]
        by_class = ", ".join(_class_changes(before, now, pool))
        if numbers[0] != numbers[1]:
            more = f" ({by_class})" if by_class else ""
            changes.append(f"{numbers[0]:,} -> {numbers[1]:,} {noun}{more}")
        elif by_class:
            changes.append(f"{numbers[1]:,} {noun} ({by_class})")
        # A fingerprint has the classes' numbers, which other classes change.
        elif names == others and fingerprints[0].get(pool) != fingerprints[1].get(pool):
            changes.append(f"{numbers[1]:,} {noun} as before, but other images, labels or order")
    whole = len(pools) == len(POOLS)
    if whole and not changes and before.get("split_fingerprint") != now.get("split_fingerprint"):
        changes.append("another split")
    return changes


def _number(run: Row, pool: str) -> int:
    return sum(run["labeled_counts"]) if pool == "labeled" else int(run.get(pool) or 0)


def _class_changes(before: Row, now: Row, pool: str) -> Iterator[str]:
    counts = [
        dict(zip(run["class_names"], run.get(f"{pool}_counts") or (), strict=False))
        for run in (before, now)
    ]
    if not all(counts):
        return
    names = [n for n in {**counts[0], **counts[1]} if counts[0].get(n, 0) != counts[1].get(n, 0)]
    for name in names[:MOST_NAMED]:
        yield f"{name} {counts[0].get(name, 0):,} -> {counts[1].get(name, 0):,}"
    if len(names) > MOST_NAMED:
        yield f"and {len(names) - MOST_NAMED} more classes"
