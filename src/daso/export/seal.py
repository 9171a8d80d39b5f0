"""A checksum of an exported file, inside the file itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

PREFIX = "daso-checksum:"
EMPTY = "0" * 32
SEAL = {"checksum": f'"{PREFIX}{EMPTY}"'}
"""What a file's metadata holds before it is sealed, as JSON; the digits are an empty checksum's."""


def seal_file(path: Path) -> None:
    """Replace the empty checksum in a file that was just written."""
    content = path.read_bytes()
    place, _, expected = _checksums(content)
    path.write_bytes(content[:place] + expected + content[place + len(EMPTY) :])


def is_intact(path: Path) -> bool:
    """Return whether a file is as it was sealed; older files, without a checksum, count so."""
    content = path.read_bytes()
    if PREFIX.encode() not in content:
        return True
    _, stored, expected = _checksums(content)
    return stored == expected


def _checksums(content: bytes) -> tuple[int, bytes, bytes]:
    """Return the place of the checksum, its digits, and those that it should have."""
    place = content.index(PREFIX.encode()) + len(PREFIX)
    end = place + len(EMPTY)
    digest = hashlib.blake2b(content[:place], digest_size=len(EMPTY) // 2)
    digest.update(EMPTY.encode() + content[end:])
    return place, content[place:end], digest.hexdigest().encode()
