"""The columns of a table: which hold images, labels and splits, and the names of classes."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from daso.data.formats.arrow import Table
from daso.data.part_names import is_flag, reads_like_split
from daso.errors import DataError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")


def split_columns(table: Table, names: Sequence[str]) -> list[str]:
    """Return the columns, out of *names*, that read like a split, or like a flag of one."""
    import pyarrow.types as types

    found = []
    for name in names:
        if table.schema.names.count(name) > 1:
            continue
        kind = table.schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        texts = (
            *(types.is_string, types.is_large_string, types.is_string_view),
            *(types.is_binary, types.is_large_binary, types.is_binary_view),
        )
        tests = [reads_like_split] if any(is_text(kind) for is_text in texts) else []
        for reads in (*tests, is_flag):
            with closing(table.column(name)) as columns:  # a value too many ends the reading
                values = itertools.chain.from_iterable(c.to_pylist() for c in columns)
                if reads(name, map(_as_text, values)):
                    found.append(name)
                    break
    return found


def _as_text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def metadata_names(metadata: Mapping[bytes, bytes], label: str, file: Path) -> tuple[str, ...]:
    """Return the class names in a file of ``datasets``; () in any other."""
    stored = metadata.get(b"huggingface")
    if stored is None:
        return ()
    try:
        features = json.loads(stored)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        features = None
    return feature_names(features, label, file)


def feature_names(features: object, label: str, where: Path) -> tuple[str, ...]:
    """Return the class names of a column in the features of a Hugging Face data set."""
    try:
        feature = features[label]  # type: ignore[index]
        names = tuple(str(name) for name in feature.get("names") or ())
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{where}: 'huggingface' metadata lacks column {label}") from error
    if len(set(names)) != len(names):
        raise DataError(f"{where}: 'huggingface' metadata names a class twice: {names[:20]}")
    return names


def label_of(value: Any, place: str) -> int | str | None:
    """Return a label; numbers with gaps are stored as floating-point, yes and no as texts."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if not value.is_integer():
            raise DataError(f"{place}: the label {value} is neither a whole number nor a text")
        return int(value)
    label: int | str | None = value
    return label


def find_columns(schema: Any, file: Path, *, labeled: bool) -> tuple[str, str]:
    """Return the names of the columns of images and labels; "" without labels."""
    import pyarrow.types as types

    names = list(schema.names)
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    label = next((name for name in LABEL_COLUMNS if name in names), "")
    if image is None or (labeled and not label):
        wanted = [f"a column {' or '.join(IMAGE_COLUMNS)}"]
        wanted += [f"a column {' or '.join(LABEL_COLUMNS)}"] if labeled else []
        raise DataError(f"{file}: needs {' and '.join(wanted)}; it has {', '.join(names)[:500]}")
    if names.count(image) > 1 or names.count(label) > 1:
        raise DataError(f"{file}: has two columns {image!r} or two columns {label!r}")
    content = schema.field(image).type
    if types.is_struct(content) and (index := content.get_field_index("bytes")) >= 0:
        content = content.field(index).type
    binary = (types.is_binary, types.is_large_binary, types.is_binary_view)
    if not any(is_known(content) for is_known in binary):
        kind = schema.field(image).type
        what = "bytes or struct{bytes, path}, one image a row"
        raise DataError(f"{file}: column {image} must be {what}, found {kind}")
    if not label:
        return image, label
    kind = schema.field(label).type
    value = kind.value_type if types.is_dictionary(kind) else kind  # pandas' categories
    known = (
        *(types.is_integer, types.is_floating, types.is_boolean, types.is_null),
        *(types.is_string, types.is_large_string, types.is_string_view),
    )
    if not any(is_known(value) for is_known in known):
        raise DataError(f"{file}: column {label} must be integers or texts, found {kind}")
    return image, label
