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
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["daso", "PIL", "tarfile", "gzip", "zipfile", "csv", "pickletools"]
):
    from PIL import Image, features  # noqa: F401 - instrumented before daso needs it

    from daso.data.benchmarks.cifar import CIFAR10, read_cifar
    from daso.data.benchmarks.idx import read_idx_file
    from daso.data.benchmarks.unpickle import load_dictionary
    from daso.data.formats.manifest import list_manifest
    from daso.data.formats.npz import read_npz
    from daso.data.images.decode import decode, read_header
    from daso.data.open import open_source
    from daso.errors import DasoError
    from daso.files import read_json, read_rows
    from daso.train.config import RunConfig

import test_hostile_arrays
import test_hostile_images
import test_hostile_runs
import test_hostile_shards
import test_hostile_tables

FOUND = Path("fuzz-found")


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
    "run": (run_folder, [json.dumps(test_hostile_runs.PLAIN).encode()]),
}  # fmt: skip


def fuzz(reader: str, seconds: int) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    read, seeds = READERS[reader]
    warnings.simplefilter("ignore")
    logging.disable()
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
        command = [
            sys.executable,
            __file__,
            "--here",
            "--reader",
            reader,
            "--seconds",
            str(arguments.seconds),
        ]
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
