"""Damaged and hostile manifests, parquet and Arrow files; names that lead where they should not."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from damage import QUICK, damaged, put, survives
from hypothesis import given
from hypothesis import strategies as st
from made_files import plain_png

from daso.data.formats.manifest import list_manifest
from daso.data.listing import Listing
from daso.data.open import open_source
from daso.errors import DataError

CSV = b"path,label,split\na.png,cat,\nin/b.png,dog,train\nc.png,,\nd.png,cat,test\n"
LINES = b'{"path": "a.png", "label": "cat"}\n{"path": "in/b.png", "label": "dog"}\n{"path": "c.png", "label": null}\n'
FILES = ("a.png", "in/b.png", "c.png", "d.png")
SUFFIXES = st.sampled_from([".csv", ".tsv", ".jsonl"])


def png(value: int) -> bytes:
    return plain_png((value, 0, 0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("hostile")
    for number, name in enumerate(FILES):
        put(top / "photos" / name, png(number))
    put(top / "secret.png", png(99))
    (top / "photos" / "way-out").symlink_to(top)
    (top / "photos" / "secret-link.png").symlink_to(top / "secret.png")
    return top / "photos"


def stays_inside(folder: Path, manifest: Path) -> None:
    listing = survives(lambda: list_manifest(manifest, skip_bad=True))
    if listing is None:
        return
    assert isinstance(listing, Listing)
    for pool in listing.pools.values():
        for index in range(len(pool)):
            path = Path(pool.name_of(index)).resolve()
            assert path.is_relative_to(folder.resolve())
            assert path.is_file()
        assert pool.labels.max() < len(listing.class_names)


@QUICK
@given(damaged([CSV, LINES, CSV.replace(b",", b"\t")]), SUFFIXES)
def test_damaged_manifests(folder: Path, content: bytes, suffix: str) -> None:
    stays_inside(folder, put(folder / f"manifest{suffix}", content))


@QUICK
@given(st.binary(max_size=300), SUFFIXES)
def test_any_bytes_for_a_manifest(folder: Path, content: bytes, suffix: str) -> None:
    stays_inside(folder, put(folder / f"manifest{suffix}", content))


PIECES = st.sampled_from(
    [
        "..",
        ".",
        "",
        "/",
        "a.png",
        "in",
        "b.png",
        "way-out",
        "secret.png",
        "secret-link.png",
        "~",
        "\0",
        "\\",
    ]
)


@QUICK
@given(st.lists(PIECES, max_size=6).map("/".join), st.text(max_size=5))
def test_no_name_leads_out_of_the_folder(folder: Path, name: str, label: str) -> None:
    rows = [
        {"path": name, "label": label},
        {"path": str(folder) + "/" + name, "label": "x"},
        {"path": "a.png", "label": "y"},
    ]
    manifest = put(folder / "names.jsonl", "\n".join(map(json.dumps, rows)).encode())
    stays_inside(folder, manifest)


@QUICK
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["path", "label", "split", "image", "class"]),
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(),
                st.floats(),
                st.text(max_size=8),
                st.sampled_from(FILES),
                st.lists(st.integers(), max_size=2),
            ),
            max_size=4,
        ),
        max_size=5,
    )
)
def test_any_objects_for_rows(folder: Path, rows: list[dict[str, object]]) -> None:
    stays_inside(folder, put(folder / "rows.jsonl", "\n".join(map(json.dumps, rows)).encode()))


def images_with(labels: Sequence[int | str | None]) -> Any:
    """Return a table of images, each with a label."""
    pa = pytest.importorskip("pyarrow")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": png(value), "path": "x"} for value in range(len(labels))], kind)
    return pa.table({"image": images, "label": labels})


def parquet() -> bytes:
    table = images_with([0, 1, 2, 0, 1, -1])
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=3)
    return stream.getvalue()


def arrow() -> bytes:
    table = images_with(["a", "b", "", None, "a", "b"])
    import pyarrow as pa

    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return stream.getvalue()


@QUICK
@given(damaged([parquet()]))
def test_damaged_parquet_files(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "train.parquet", content)
    survives(lambda: open_source(str(tmp_path), skip_bad=True))
    survives(lambda: open_source(str(tmp_path / "train.parquet"), skip_bad=True))


@QUICK
@given(damaged([arrow()]), damaged([b'{"features": {"label": {"_type": "Value"}}}']))
def test_damaged_arrow_files(tmp_path: Path, content: bytes, info: bytes) -> None:
    put(tmp_path / "data.arrow", content)
    put(tmp_path / "state.json", b'{"_data_files": [{"filename": "data.arrow"}]}')
    put(tmp_path / "dataset_info.json", b'{"features": {"label": {"_type": "Value"}}}')
    survives(lambda: open_source(str(tmp_path), skip_bad=True))
    put(tmp_path / "dataset_info.json", info)
    survives(lambda: open_source(str(tmp_path), skip_bad=True))


def test_a_saved_data_set_reads_no_file_outside_of_it(tmp_path: Path) -> None:
    put(tmp_path / "away" / "data.arrow", arrow())
    for name in (
        "../away/data.arrow",
        str(tmp_path / "away" / "data.arrow"),
        "..",
        "a\0b",
        "..\\away\\data.arrow",
    ):
        put(
            tmp_path / "set" / "state.json",
            json.dumps({"_data_files": [{"filename": name}]}).encode(),
        )
        put(tmp_path / "set" / "dataset_info.json", b'{"features": {"label": {}}}')
        with pytest.raises(DataError, match="is not the name of a file"):
            open_source(str(tmp_path / "set"))
