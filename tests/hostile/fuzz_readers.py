"""Coverage-guided fuzzing of every reader, by atheris (``pip install 'daso[fuzz]'``).

    python tests/hostile/fuzz_readers.py --seconds 120            # all readers, one after the other
    python tests/hostile/fuzz_readers.py --reader pickle --seconds 600

Bytes that a reader answers with anything but a result or a ``DasoError``, or that take it more than 20 seconds or
2 GiB, are written to ``fuzz-found/`` and named; the exit status is 1 then. Each reader runs in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

sys.path.append(str(Path(__file__).parent.parent / "helpers"))
with atheris.instrument_imports(
    include=["daso", "PIL", "tarfile", "gzip", "zipfile", "csv", "pickletools"]
):
    from PIL import Image, features  # noqa: F401 - instrumented before daso needs it

    from daso.cli.prediction.inputs import Inputs
    from daso.cli.prediction.output import Journal as Rows
    from daso.cli.prediction.output import Table, write_output
    from daso.data.benchmarks.cifar import CIFAR10, read_cifar
    from daso.data.benchmarks.idx import read_idx_file
    from daso.data.benchmarks.unpickle import load_dictionary
    from daso.data.formats.manifest import list_manifest
    from daso.data.formats.npz import read_npz
    from daso.data.images.decode import decode, read_header
    from daso.data.images.encoded import content_digest
    from daso.data.journal import Journal, journal_path
    from daso.data.journal.entries import LINE_CHECKSUM
    from daso.data.labeling import open_for_labeling, sort_files, unsort_files
    from daso.data.labeling.sorting import plan_path
    from daso.data.open import open_source
    from daso.errors import DasoError
    from daso.files import read_json, read_rows, seal, to_line
    from daso.report.html.page import write_report
    from daso.report.runs import read_run
    from daso.train.config import RunConfig

import test_hostile_arrays
import test_hostile_images
import test_hostile_runs
import test_hostile_shards
import test_hostile_tables

FOUND = Path("fuzz-found")
PHOTOS = ("labeled/cat/0.png", "labeled/dog/1.png", "unlabeled/2.png", "unlabeled/3.png")
ACTIONS: list[dict[str, object]] = [
    {"action": "label", "image": "unlabeled/2.png", "label": "fox"},
    {"action": "none", "image": "unlabeled/3.png"},
    {"action": "keep", "image": "labeled/cat/0.png", "label": "cat"},
    {"action": "undo", "undoes": 2, "image": "unlabeled/3.png"},
    {"action": "class", "label": "emu"},
    {"action": "round", "round": 1, "details": {"labels": [1, 2], "run": "runs/a"}},
    {
        "action": "apply",
        "image": "unlabeled/2.png",
        "details": {"entry": 1, "to": "labeled/fox/2.png", "how": "copy", "created": True,
                    "new_folder": True, "was": None},
    },
]  # fmt: skip
"""Of a journal."""
STEP = {
    "entry": 1, "image": "unlabeled/2.png", "label": "fox", "checksum": content_digest(test_hostile_tables.png(2)).hex(), "to": "labeled/fox/2.png",
    "how": "move", "created": True, "new_folder": True, "was": None,
}  # fmt: skip
"""Of a plan to sort files."""
EVENTS: list[dict[str, object]] = [
    {"event": "train", "step": 1, "loss": 1.5},
    {"event": "pseudo_labels", "step": 1, "count": [1, 2], "right": [1, 0]},
    {"event": "evaluation", "step": 2, "test": {"accuracy": 50.0, "recall": [50.0, 50.0]}},
]
"""Rows of a training."""


def lines(rows: Iterable[dict[str, object]]) -> bytes:
    """Return rows as lines of JSON."""
    return b"".join(to_line(row).encode() for row in rows)


def image(content: bytes, folder: Path) -> None:
    """Read an image's header, and its pixels as they are and resized."""
    read_header(content)
    assert decode(content, channels=3).shape[0] == 3
    assert decode(content, size=8).shape[1:] == (8, 8)


def manifest(suffix: str) -> Callable[[bytes, Path], None]:
    """Return what reads a manifest in a folder with one image, and must not leave it."""

    def read(content: bytes, folder: Path) -> None:
        (folder / "a.png").write_bytes(test_hostile_tables.png(3))
        file = folder / f"manifest{suffix}"
        file.write_bytes(content)
        listing = list_manifest(file, skip_bad=True)
        for pool in listing.pools.values():
            assert all(
                Path(pool.name_of(i)).resolve().is_relative_to(folder) for i in range(len(pool))
            )

    return read


def written(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], None]:
    """Return what writes bytes to a file and reads it."""

    def run(content: bytes, folder: Path) -> None:
        (folder / name).write_bytes(content)
        read(folder / name)

    return run


def saved(content: bytes, folder: Path) -> None:
    """Read a saved data set whose Arrow file has these bytes."""
    (folder / "data.arrow").write_bytes(content)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (folder / "dataset_info.json").write_text('{"features": {"label": {"_type": "Value"}}}')
    open_source(str(folder), skip_bad=True)


def parquet(path: Path) -> None:
    """Read a file as images in parquet, and as a manifest."""
    with contextlib.suppress(DasoError):
        open_source(str(path), skip_bad=True)
    open_source(str(path.parent), skip_bad=True)


def run_folder(content: bytes, folder: Path) -> None:
    """Read bytes as a run's configuration and as its rows."""
    (folder / "x.json").write_bytes(content)
    with contextlib.suppress(DasoError):
        read_rows(folder / "x.json")
    RunConfig.from_dict(read_json(folder / "x.json"), "x.json").fingerprint()


def sealed(content: bytes, name: str) -> bytes:
    """Return lines of JSON with right checksums, so that what lies behind these is fuzzed too."""
    parts = content.split(b"\n")
    for number, line in enumerate(parts):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and row:
                parts[number] = to_line(seal(row, name)).encode()[:-1]
    return b"\n".join(parts)


def photos(folder: Path) -> Path:
    """Return a small folder of images as ``daso label`` opens it, made anew."""
    place = folder / "photos"
    shutil.rmtree(place, ignore_errors=True)
    for number, name in enumerate(PHOTOS):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(test_hostile_tables.png(number))
    return place


def journal(content: bytes, folder: Path) -> None:
    """Use a journal: read, applied, written on, its files sorted and put back."""
    place = photos(folder)
    path = journal_path(place)
    path.write_bytes(sealed(content, LINE_CHECKSUM))
    with contextlib.suppress(DasoError):
        open_source(str(place), skip_bad=True)
    before = sorted((place / name).read_bytes() for name in PHOTOS)
    with Journal.open(path) as opened:
        data = open_for_labeling(str(place))
        known = len(opened.entries)
        for sort in (sort_files, unsort_files):
            with contextlib.suppress(DasoError):
                sort(opened, data)
        opened.undo()
        entry = opened.append("label", image="unlabeled/2.png", label="cat")
        assert entry.number > known
    there = open_for_labeling(str(place)).places()
    decided = {one.number: name for name, one in Journal.read(path).decisions(there).items()}
    assert decided[entry.number] in there, "a label is of no image"
    after = {file.read_bytes() for file in place.rglob("*.png")}
    assert after == set(before), "a photo is lost"


def plan(content: bytes, folder: Path) -> None:
    """Complete a sorting whose plan has these bytes."""
    place = photos(folder)
    before = {(place / name).read_bytes() for name in PHOTOS}
    with Journal.open(journal_path(place)) as opened:
        plan_path(opened).write_bytes(content)
        for sort in (sort_files, unsort_files):
            with contextlib.suppress(DasoError):
                sort(opened, open_for_labeling(str(place)))
    assert {file.read_bytes() for file in place.rglob("*.png")} == before, "a photo is lost"


def resumed(content: bytes, folder: Path) -> None:
    """Go on with a stopped prediction, and write its rows."""
    photos(folder)
    place = folder / "out.csv.partial"
    table = Table(("cat", "dog"), 1, probabilities=False, unsure=0.0)
    place.unlink(missing_ok=True)
    Rows(place, {}, resume=False)._file.close()
    content = content.replace(b"photos/", f"{folder}/photos/".encode())
    rows_there = (b"%08x %s" % (zlib.crc32(line), line) for line in content.split(b"\n"))
    with place.open("ab") as file:
        file.write(b"\n".join(rows_there))
    inputs = Inputs([str(folder / "photos")])
    rows = Rows(place, {}, resume=True)
    rest = iter(inputs)
    rows.skip(rest)  # of more rows than there are images, or of other ones, an error
    left = list(rest)
    rows.write(left, [table.row(item.name, "gone") for item in left])
    write_output(folder / "out.csv", table.columns, rows.read())
    rows.remove()
    assert len((folder / "out.csv").read_text().splitlines()) == 1 + len(list(inputs))


def rows(content: bytes, folder: Path) -> None:
    """Show a run with these rows, in the report too."""
    (folder / "config.json").write_text(json.dumps(seal(test_hostile_runs.PLAIN)))
    (folder / "metrics.jsonl").write_bytes(sealed(content, "checksum"))
    with contextlib.suppress(DasoError):
        read_run(folder)
    write_report(folder)


READERS: dict[str, tuple[Callable[[bytes, Path], object], list[bytes]]] = {
    "image": (image, test_hostile_images.SAMPLES),
    "csv": (manifest(".csv"), [test_hostile_tables.CSV]),
    "jsonl": (manifest(".jsonl"), [test_hostile_tables.LINES]),
    "npz": (written("a.npz", read_npz), [test_hostile_arrays.npz_stored()]),
    "idx": (written("a", lambda path: read_idx_file(path, 3)), [test_hostile_arrays.idx(test_hostile_arrays.IMAGES)]),
    "pickle": (lambda content, _: load_dictionary(content, "here"), test_hostile_arrays.PICKLES),
    "archive": (written("a.tar.gz", lambda path: read_cifar(path, CIFAR10)), [test_hostile_arrays.WHOLE]),
    "parquet": (written("train.parquet", parquet), [test_hostile_tables.parquet()]),
    "arrow": (saved, [test_hostile_tables.arrow()]),
    "shard": (written("a.tar", test_hostile_shards.read_both_ways), test_hostile_shards.SAMPLES),
    "journal": (journal, [lines({"number": n, **row} for n, row in enumerate(ACTIONS, 1))]),
    "plan": (plan, [json.dumps({"files": [STEP]}).encode()]),
    "resume": (resumed, [json.dumps(["", "", "photos/labeled/cat/0.png", "cat", 0.9, None]).encode()]),
    "rows": (rows, [lines(EVENTS)]),
    "run": (run_folder, [json.dumps(test_hostile_runs.PLAIN).encode()]),
}  # fmt: skip


def fuzz(reader: str, seconds: int) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    read, seeds = READERS[reader]
    warnings.simplefilter("ignore")
    logging.disable()
    os.fsync = lambda _: None  # most of the time would go into it
    with tempfile.TemporaryDirectory() as place:
        corpus, folder = Path(place, "corpus"), Path(place, "data").resolve()
        corpus.mkdir()
        folder.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / str(number)).write_bytes(seed)

        def once(content: bytes) -> None:
            with contextlib.suppress(DasoError):
                read(content, folder)

        FOUND.mkdir(exist_ok=True)
        limits = [
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-max_len=20000",
            f"-max_total_time={seconds}",
        ]
        output = [
            f"-artifact_prefix={FOUND}/{reader}-",
            "-verbosity=0",
            "-print_final_stats=1",
            str(corpus),
        ]
        atheris.Setup([sys.argv[0], *limits, *output], once)
        atheris.Fuzz()


def main() -> int:
    """Fuzz as the arguments say; 1 if anything was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reader", choices=READERS, help="one reader (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        fuzz(arguments.reader, arguments.seconds)
        return 0
    failed = []
    for reader in [arguments.reader] if arguments.reader else list(READERS):
        command = [sys.executable, __file__, "--here", "--reader", reader]
        command += ["--seconds", str(arguments.seconds)]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
        runs = [
            line.rpartition(" ")[2]
            for line in done.stderr.splitlines()
            if "number_of_executed_units" in line
        ]
        print(
            f"{reader}: {runs[0] if runs else '?'} inputs, {'nothing found' if not done.returncode else 'FOUND'}",
            flush=True,
        )
        if done.returncode:
            failed.append(reader)
            print((done.stdout + done.stderr)[-3000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
