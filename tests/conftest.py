"""Tiny trainings and image folders that the tests of training, command line and report share."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import os
import pickle
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

# Networks this small are fastest on one thread; it must be said before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import quick_defaults  # noqa: F401 - for its effect
from PIL import Image

from daso.cli import main
from daso.data.benchmarks.cifar import CIFAR10
from daso.data.draws import longtail_split
from daso.data.images.decoded import DecodedImages
from daso.data.longtail import SplitOptions, longtail_counts, unlabeled_counts
from daso.data.open import open_source
from daso.data.source import Source
from daso.report import tsne
from daso.report.figures import draw
from daso.train.config import RunConfig
from daso.train.folder import environment
from daso.train.options import TrainOptions
from daso.train.prepare import prepare
from daso.train.run import train_run

SPLIT = SplitOptions(
    labeled_head=20, unlabeled_head=40, gamma_labeled=10, gamma_unlabeled=10, holdout=50
)

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

MARKS = {
    "browser": [
        "test_comparison_browser.py",
        "test_html_browser.py",
        "test_label_page.py",
        "test_label_views.py",
    ],
    "process": [
        "test_campaign.py",
        "test_cli_usage.py",
        "test_engine.py",
        "test_full_disk.py",
        "test_gpu_benchmark.py",
        "test_killed_run.py",
        "test_label_formats.py",
        "test_label_process.py",
        "test_label_trainer.py",
        "test_minutes_benchmark.py",
        "test_predict_resumed.py",
        "test_processes.py",
        "test_reproduce.py",
        "test_serve.py",
        "test_shared_training.py",
        "test_speed_benchmark.py",
        "test_sweep.py",
        "test_torchrun.py",
        "test_track.py",
        "test_track_libraries.py",
        "test_workers.py",
    ],
    "slow": [
        "test_advice_of_runs.py",
        "test_advice_tables.py",
        "test_beliefs.py",
        "test_cli_demo.py",
        "test_compiled_step.py",
        "test_damaged_files.py",
        "test_divergence.py",
        "test_embed.py",
        "test_estimator.py",
        "test_estimator_benchmark.py",
        "test_estimator_inputs.py",
        "test_every_statement.py",
        "test_export.py",
        "test_export_kinds.py",
        "test_figures.py",
        "test_folds.py",
        "test_generations.py",
        "test_html_damaged.py",
        "test_like.py",
        "test_notes.py",
        "test_engines.py",
        "test_pause.py",
        "test_plain_networks.py",
        "test_pretended_cuda.py",
        "test_pretended_graphs.py",
        "test_pretrained.py",
        "test_pretrained_runs.py",
        "test_probe.py",
        "test_readout_exports.py",
        "test_readout_runs.py",
        "test_recompute.py",
        "test_retraining.py",
        "test_run_pictures.py",
        "test_stages.py",
        "test_strong_side.py",
        "test_train_labels.py",
        "test_watch.py",
    ],
}
"""Files of tests by the mark that `make quick` leaves out; single tests are marked where they stand."""

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DRAW_RUN, EMBED = draw.draw_run, tsne.embed
MakeConfig = Callable[..., RunConfig]
MakeFolder = Callable[..., Path]
Say = Callable[..., tuple[int, str]]
"""Runs the command line; returns status and what was printed."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that `make quick` does not run: to import what they need takes seconds."""
    left_out = re.findall(r"not (\w+)", config.option.markexpr)
    return any(collection_path.name in MARKS.get(mark, ()) for mark in left_out) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whole files of tests, as the table says; files that take long are the first.

    So processes that share the tests end together.
    """
    for item in items:
        for mark, files in MARKS.items():
            if item.path.name in files:
                item.add_marker(mark)
    rank = {name: place for place, name in enumerate(n for files in MARKS.values() for n in files)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what is imported by now: half a million objects and more."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _same_commit() -> None:
    """Leave git out: a run that is resumed tells if the commit has changed, and it may while tests run."""
    environment._commit = lambda: "0123456789ab"


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard() -> None:
    """Let processes of the tests hear signals that a shell made this one ignore: in the background, under nohup."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def import_benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that imports a module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a running browser for the tests of a module."""
    from browser import chromium

    with chromium() as running:
        yield running


@pytest.fixture(autouse=True, scope="session")
def _without_pictures() -> None:
    """Leave out the pictures of finished runs, which take longer than a tiny training."""
    draw.draw_run = lambda folder: []


@pytest.fixture
def with_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the pictures of finished runs after all."""
    monkeypatch.setattr(draw, "draw_run", DRAW_RUN)


@pytest.fixture(autouse=True, scope="session")
def _without_map() -> None:
    """Leave out the placing of images on a map, which takes longer than all else in a report."""
    tsne.embed = lambda points: points[:, :2]


@pytest.fixture
def with_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Place images on a map after all."""
    monkeypatch.setattr(tsne, "embed", EMBED)


@pytest.fixture(scope="session")
def digits() -> Source:
    """Return the digits, which come with scikit-learn."""
    return open_source("digits")


@pytest.fixture(scope="session")
def vectors(digits: Source) -> Source:
    """Return the digits as vectors of 64 pixels."""

    def flat(pool: DecodedImages | None) -> DecodedImages:
        assert pool is not None
        return DecodedImages(pool.images.reshape(len(pool), 1, 64).astype(np.float32), pool.labels)

    pools = {"train": flat(digits.train), "test": flat(digits.test)}
    return dataclasses.replace(digits, mean=None, std=None, **pools)


@pytest.fixture(scope="session")
def long_tailed() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return digits: rows and labels, 30 of the most frequent class and -1 from there on; test rows and labels."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)  # noqa: N806 - as scikit-learn names it
    counts = longtail_counts(30, 15, 10), unlabeled_counts("uniform", 60, 1, 10)
    parts = longtail_split(y, *counts, holdout=600, seed=1)
    rows = np.concatenate([parts.labeled, parts.unlabeled])
    labels = np.concatenate([y[parts.labeled], np.full(len(parts.unlabeled), -1)])
    return X[rows], labels, X[parts.holdout], y[parts.holdout]


@pytest.fixture(scope="session")
def tiny_config() -> MakeConfig:
    """Return a function that makes the configuration of a training of a few seconds at most."""

    def make(
        method: str = "fixmatch+daso",
        *,
        split: SplitOptions = SPLIT,
        method_options: dict[str, object] | None = None,
        **train: object,
    ) -> RunConfig:
        options = {
            "steps": 20,
            "batch": 8,
            "network": "small-4",
            "evaluate_every": 5,
            "device": "cpu",
            "precision": "float32",
        }
        return RunConfig(
            source="digits",
            method=method,
            split=split,
            method_options=method_options or {},
            train=TrainOptions(**(options | train)),
        )

    return make


@pytest.fixture(scope="session")
def _finished_runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: MakeConfig, digits: Source
) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for method in ("fixmatch+daso", "supervised"):
        folder = tmp_path_factory.mktemp("finished") / method
        # A threshold of 0.2 lets a network that has hardly learned teach itself, so every loss is at work.
        options: dict[str, object] = (
            {"threshold": 0.2, "warmup_steps": 4, "histogram_period": 4}
            if method != "supervised"
            else {}
        )
        list(train_run(prepare(tiny_config(method, method_options=options), digits), folder))
        folders[method] = folder
    return folders


@pytest.fixture
def finished_run(_finished_runs: dict[str, Path], tmp_path: Path) -> Path:
    """Return a copy, for the test to damage, of a complete run of fixmatch+daso on digits, 20 steps."""
    return Path(shutil.copytree(_finished_runs["fixmatch+daso"], tmp_path / "finished"))


@pytest.fixture
def finished_supervised_run(_finished_runs: dict[str, Path], tmp_path: Path) -> Path:
    """Return a copy of a complete supervised run on digits, 20 steps."""
    return Path(shutil.copytree(_finished_runs["supervised"], tmp_path / "finished-supervised"))


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of CIFAR-10's files with 40 training and 4 test images of each class; a class is a color."""
    folder = tmp_path_factory.mktemp("data") / "cifar10" / CIFAR10.folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    colors = random.integers(0, 256, (10, 3, 1))
    for name in CIFAR10.batches:
        labels = np.arange(80 if name in CIFAR10.train else 40) % 10
        noisy = colors[labels] + random.integers(-60, 60, (len(labels), 3, 1024))
        images = noisy.clip(0, 255).astype(np.uint8).reshape(len(labels), -1)
        (folder / name).write_bytes(pickle.dumps({b"data": images, b"labels": labels.tolist()}, 2))
    return folder.parent.parent


@pytest.fixture(scope="session")
def make_image_folder(tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """Return a function that writes a new image folder in which a class is a color."""
    colors = {"blue": (30, 40, 200), "green": (30, 200, 40), "red": (200, 40, 30)}

    def write(
        where: Path, color: tuple[int, int, int], count: int, random: np.random.Generator
    ) -> None:
        where.mkdir(parents=True)
        for number in range(count):
            noisy = np.array(color) + random.integers(-30, 30, (12, 12, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(where / f"{number:03d}.png")

    def make(
        *,
        classes: tuple[str, ...] = ("blue", "green", "red"),
        labeled: int = 6,
        unlabeled: int = 8,
        val: int = 2,
        test: int = 4,
    ) -> Path:
        folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
        for label, class_name in enumerate(classes):
            color = colors[class_name]
            for part, count in (("labeled", labeled - label), ("val", val), ("test", test)):
                if count:
                    write(folder / part / class_name, color, count, random)
            if unlabeled:
                write(folder / "unlabeled" / f"camera-{label}", color, unlabeled, random)
        return folder

    return make


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Let tensors be float64 by default."""
    from shared_training import float64

    with float64():
        yield


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Return a function that runs the command line and returns its status and words."""

    def run(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as ended:  # after --help
            status = int(ended.code or 0)
        said = capsys.readouterr()
        return status, said.err + said.out

    return run
