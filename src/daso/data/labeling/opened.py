"""Open a data set for ``daso label``: also one without labels, each image by its number."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from daso.data.images.decode import to_picture
from daso.data.images.decoded import DecodedImages, digest
from daso.data.images.encoded import Encoded, EncodedImages
from daso.data.journal.entries import Journal, journal_path, labels_in_force
from daso.data.journal.names import array_name, item_checksum, short_name_from
from daso.data.listing import Listing, Reading
from daso.data.open import base_of, list_arrays, list_files
from daso.data.places import is_named
from daso.errors import DataError, OptionError


@dataclass(frozen=True)
class LabelingData:
    """The images of a data set, as its files have them: before the journal is applied.

    Attributes:
        listing: classes, and pools by part: "train" (labeled; may be empty), "unlabeled",
            "validation", "test". Images of arrays are encoded as PNG when they are read.
        source: the path that was opened.
        base: folder in which the names of images start; None: names are those of arrays.
        arrays: by part, where the source holds arrays.
    """

    listing: Listing
    source: Path
    reading: Reading
    base: Path | None
    arrays: Mapping[str, DecodedImages] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the data itself, those without a labeled image last; more may be added."""
        return (*self.listing.class_names, *self.listing.measured)

    @property
    def pools(self) -> Mapping[str, EncodedImages]:
        return self.listing.pools

    @property
    def journal(self) -> Path:
        return journal_path(self.source)

    def name(self, part: str, index: int) -> str:
        """Return the name of an image in the journal."""
        name = self.pools[part].name_of(index)
        return name if self.base is None else short_name_from(self.base)(name)

    def names(self, part: str) -> list[str]:
        """Return the names of all images of a part in the journal."""
        names = self.pools[part].all_names()
        return list(names if self.base is None else map(short_name_from(self.base), names))

    def places(self) -> dict[str, tuple[str, int]]:
        """Return part and index of the images that may be labeled, by their names."""
        parts = [part for part in ("train", "unlabeled") if part in self.pools]
        return {name: (part, i) for part in parts for i, name in enumerate(self.names(part))}

    def read(self, part: str, index: int) -> Encoded:
        """Return one image, as its file or as bytes."""
        item = self.pools[part].read(index)
        if isinstance(item, DataError):
            raise item
        return item

    def checksum(self, part: str, index: int) -> str:
        """Return the checksum of an image for the journal."""
        if self.arrays is not None:
            return digest(np.asarray(self.arrays[part].images[index])).hex()
        return item_checksum(self.pools[part].read(index))


def open_for_labeling(source: str, reading: Reading | None = None) -> LabelingData:
    """Open a data set that may lack labels, or images of some class; see ``open_source``.

    A folder that holds no parts and no classes is one of unlabeled images, at any depth.
    """
    if is_named(source):
        raise OptionError(
            f"{source!r} is found by its name and complete; daso label takes the path of images"
        )
    path = Path(source).expanduser()
    classes = labels_in_force(Journal.read(journal_path(path))) if path.exists() else set()
    reading = replace(reading or Reading(), skip_bad=True)
    listing = list_files(source, reading, classes)
    if listing is not None:
        return LabelingData(listing, path, reading, base_of(path, reading.data))
    opened = list_arrays(path, reading, partial=True)
    arrays = opened.parts()
    pools = {part: _as_encoded(part, images) for part, images in arrays.items()}
    listing = Listing(
        opened.name, str(path), opened.class_names, pools, notes=opened.notes, partial=True
    )
    return LabelingData(listing, path, reading, None, arrays)


def _as_encoded(part: str, images: DecodedImages) -> EncodedImages:
    return EncodedImages(
        images.labels,
        partial(array_name, part),
        lambda: ([_png(image)] for image in images.images),
        False,
        lambda: (row.tobytes().hex() for row in images.digests),
        lambda index: _png(np.asarray(images.images[index])),
    )


def _png(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    to_picture(image).save(file, "png", compress_level=1)
    return file.getvalue()
