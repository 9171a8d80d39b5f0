"""``daso train``: from a source to a run folder."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from daso.cli.options import parse_train, to_config
from daso.cli.progress import follow
from daso.cli.tables import class_table, summary_table
from daso.data.open import open_source
from daso.files import read_json
from daso.report.plots import draw_run
from daso.train.lock import refuse_taken
from daso.train.run import Prepared, prepare, train_run


def free_folder(source: str, method: str) -> Path:
    """Return the first of runs/SOURCE-METHOD-1, -2, ... that does not exist."""
    stem = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(source).name or "data").strip("-.") or "data"
    name = f"{stem}-{re.sub(r'[^A-Za-z0-9.]+', '-', method)}"
    return next(folder for n in itertools.count(1) if not (folder := Path("runs") / f"{name}-{n}").exists())


def announce(prepared: Prepared, folder: Path) -> None:
    """Print, to standard error, what is about to be trained on what."""
    data, config = prepared.data, prepared.config
    pools = {"unlabelled": data.unlabeled, "hold-out": data.holdout, "test": data.test}
    parameters = sum(p.numel() for p in prepared.training.network.parameters())
    shape = "x".join(map(str, data.labeled.images.shape[2:]))
    print(
        f"{config.source}: {len(data.labeled)} labelled images {shape} of {len(data.class_names)} classes "
        f"({data.class_counts.max()} of the most frequent, {data.class_counts.min()} of the rarest)"
        + "".join(f", {len(pool)} {name}" for name, pool in pools.items() if pool is not None)
        + f"\n{config.method}: {config.train.network}, {parameters:,} parameters, "
        f"{config.train.steps:,} steps of {config.train.batch} labelled images"
        + (f" and {config.train.batch * config.train.unlabeled_ratio} unlabelled" if data.unlabeled else "")
        + f", on {data.labeled.images.device}, {config.train.precision}\nrun folder: {folder}",
        file=sys.stderr,
    )
    if len(data.labeled) < config.train.batch:
        print(
            f"note: {len(data.labeled)} labelled images are fewer than a batch of {config.train.batch}: "
            f"a batch holds some of them more than once",
            file=sys.stderr,
        )


def conclude(prepared: Prepared, folder: Path) -> None:
    """Draw the pictures of a finished run and print what came out."""
    summary = read_json(folder / "summary.json")
    draw_run(folder)
    console = Console()
    if "measured_on" in summary:
        console.print(summary_table(summary))
        names, counts = prepared.data.class_names, prepared.data.class_counts.tolist()
        console.print(class_table(names, counts, summary["median_of_last"]))
    else:
        print("no test or hold-out images: nothing was measured (--holdout sets some aside)")
    print(f"{summary['steps']} steps in {summary['seconds']:.0f} s; run folder: {folder}")


def run(argv: Sequence[str]) -> None:
    """Train as the arguments say."""
    command, method_options = parse_train(argv)
    config = to_config(command, method_options, argv)
    folder = command.out or free_folder(command.source, command.method)
    refuse_taken(folder)
    source = open_source(
        command.source,
        data=command.data,
        size=command.size,
        skip_bad=command.skip_bad,
        download=command.download,
    )
    for path, reason in source.skipped:
        print(f"skipped {path}: {reason}", file=sys.stderr)
    prepared = prepare(config, source)
    announce(prepared, folder)
    follow(train_run(prepared, folder), total=prepared.config.train.steps, label=command.method)
    conclude(prepared, folder)
