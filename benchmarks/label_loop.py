"""Measure what labeling with ``daso label`` brings, against published ways to choose images.

    pip install elpv-dataset
    python benchmarks/label_loop.py --fashion-mnist PATH --cifar10 PATH --csv results/label_loop.csv
    python benchmarks/label_loop.py --weights lite0.safetensors ...    # benchmarks/frozen.py has it
    python benchmarks/label_loop.py --table
    python benchmarks/label_loop.py --scale

An annotator who knows all classes labels 5 times 20 images. All strategies begin with the same
labels, 40 of the most frequent class to 2 of the rarest, of the same long-tailed pool; of solar
cells (ELPV), which are imbalanced by themselves, with 2 of the rarest and as many times more of the
others. The strategy of daso is a ``Session``, driven as the page drives it. The others see the
beliefs of the same live head, fitted anew after every 20 labels. The oracle knows all classes and
always labels an image of the class with the fewest labels: it shows how much can be won. In the end
two judges learn from the labels, the live head and a weighted logistic regression, and are measured
on test images.
A cold start begins without any label and ends when each class has one, or after 200.
"""

from __future__ import annotations

import itertools
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import tyro
from common import gains, grouped, mean_and_error, print_heading, provenance, read_csv
from label_pools import SETTINGS, Pool, draw, read
from label_strategies import STRATEGIES, View
from sklearn.linear_model import LogisticRegression

from daso.data.journal import Journal
from daso.data.labeling import LabelingData
from daso.label.images import Embedding
from daso.label.live import fit_head, fit_live, unit_rows
from daso.label.session import Session
from daso.report.results import append_row, has_row

Array = npt.NDArray[Any]
Begin = Literal["labels", "nothing"]
OURS, ORACLE = "daso label", "oracle"
NEED_BELIEFS = ("least margin", "entropy", "BADGE")
COLD = ("random", "CoreSet", "TypiClust", OURS)
EACH, ROUNDS, MOST_COLD = 20, 5, 200


@dataclass(frozen=True)
class LabelLoop:
    """Run what is missing and append a row for each strategy and seed; or print the results."""

    fashion_mnist: Path | None = None
    """Folder of Fashion-MNIST."""
    cifar10: Path | None = None
    """Folder of CIFAR-10."""
    weights: Path | None = None
    """Safetensors of EfficientNet-Lite0 for CIFAR-10 and ELPV; features of patches without it."""
    settings: tuple[str, ...] = tuple(SETTINGS)
    begin: tuple[Begin, ...] = ("labels", "nothing")
    strategies: tuple[str, ...] = (*STRATEGIES, OURS, ORACLE)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """100 and up are those that the selection was developed on."""
    cache: Path = Path("runs/label-loop")
    """Folder of the features."""
    csv: Path = Path("results/label_loop.csv")
    table: bool = False
    """Print the results instead."""
    scale: bool = False
    """Print the times of a session on many made-up features instead."""
    images: int = 100_000
    classes: int = 1_000
    """Size of the session of --scale."""


class Numbered:
    """A pool as the data of a session; the first images have labels."""

    def __init__(self, labels: Array, labeled: int, classes: int) -> None:
        self.class_names = tuple(f"class {k}" for k in range(classes))
        first, rest = labels[:labeled], np.full(len(labels) - labeled, -1)
        parts = {"train": first, "unlabeled": rest}
        self.pools = {
            part: SimpleNamespace(labels=rows, origins=lambda part=part: iter([part]))
            for part, rows in parts.items()
        }

    def name(self, part: str, index: int) -> str:
        return f"{part} image {index}"

    def names(self, part: str) -> list[str]:
        return [self.name(part, index) for index in range(len(self.pools[part].labels))]

    def checksum(self, part: str, index: int) -> str:
        return f"{index:032x}"


class Annotator:
    """Labels images of a pool, round by round, as one strategy asks for them."""

    def __init__(self, pool: Pool, strategy: str, seed: int, place: Path, start: int) -> None:
        self.pool, self.strategy, self.seed = pool, strategy, seed
        self.labels = np.full(len(pool.truth), -1)
        self.labels[:start] = pool.truth[:start]
        self._unit = unit_rows(pool.features)
        self._round = 0
        self._session = None
        if strategy == OURS:
            data = cast(LabelingData, Numbered(pool.truth, start, pool.classes))
            journal = Journal.open(place / "labels.jsonl")
            features = Embedding(pool.features.astype(np.float16), "given")
            self._session = Session(data, journal, features, seed=seed)

    def label(self, count: int) -> list[int]:
        """Label some images more; return them in order."""
        chosen = self._choose(count)
        for image in chosen:
            label = int(self.pool.truth[image])
            if self._session is not None:
                self._session.assign([image], f"class {label}")
            self.labels[image] = label
        self._round += 1
        return chosen

    def close(self) -> None:
        """Wait for a fit, which the end of the process would break off."""
        if self._session is not None:
            self._session.wait()
            self._session.journal.close()

    def _choose(self, count: int) -> list[int]:
        if self._session is not None:
            self._session.wait()
            return [one["image"] for one in self._session.suggest(count)]
        if self.strategy == ORACLE:
            return self._balance(count)
        beliefs = None
        if self.strategy in NEED_BELIEFS:
            beliefs = fit_live(self.pool.features, self.labels, self.pool.classes, self.seed)
        seed = 1_000 * self.seed + self._round
        view = View(self._unit, self.pool.features, self.labels, beliefs, seed)
        return [int(image) for image in STRATEGIES[self.strategy](view, count)]

    def _balance(self, count: int) -> list[int]:
        """Return images of the classes with the fewest labels, one at a time."""
        random = np.random.default_rng(1_000 * self.seed + self._round)
        labels, chosen = self.labels.copy(), list[int]()
        for _ in range(count):
            counts = np.bincount(labels[labels >= 0], minlength=self.pool.classes)
            there = np.bincount(self.pool.truth[labels < 0], minlength=self.pool.classes) > 0
            label = int(np.where(there, counts, len(labels)).argmin())
            image = int(random.choice(np.flatnonzero((labels < 0) & (self.pool.truth == label))))
            labels[image] = label
            chosen.append(image)
        return chosen


def judge(pool: Pool, labels: Array) -> dict[str, float]:
    """Return balanced accuracies, and recalls of the rarest third of classes, in per cent."""
    fit = fit_head(pool.features, labels, pool.classes, 0)
    assert fit is not None
    known = labels >= 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        regression = LogisticRegression(C=0.1, max_iter=300, class_weight="balanced")
        regression.fit(pool.features[known], labels[known])
    answers = {
        "": fit[0](torch.from_numpy(pool.test)).argmax(1).numpy(),
        "_logistic": regression.predict(pool.test),
    }
    few = np.argsort(np.bincount(pool.truth, minlength=pool.classes))[: max(1, pool.classes // 3)]
    found: dict[str, float] = {}
    for name, answer in answers.items():
        hits = answer == pool.test_truth
        recall = np.array([hits[pool.test_truth == k].mean() for k in range(pool.classes)])
        found[f"balanced_accuracy{name}"] = round(100 * float(recall.mean()), 2)
        found[f"recall_few{name}"] = round(100 * float(recall[few].mean()), 2)
    return found


def run_cell(pool: Pool, strategy: str, seed: int, begin: Begin) -> dict[str, Any]:
    """Return the numbers of one strategy on one pool."""
    start = pool.labeled if begin == "labels" else 0
    empty = dict.fromkeys(
        f"{name}{judge_}"
        for judge_ in ("", "_logistic")
        for name in ("balanced_accuracy", "recall_few")
    )
    with tempfile.TemporaryDirectory() as place:
        annotator = Annotator(pool, strategy, seed, Path(place), start)
        if begin == "nothing":
            order: list[int] = []
            while len(order) < MOST_COLD and len(set(pool.truth[order])) < pool.classes:
                order += annotator.label(EACH)
            annotator.close()
            _, first = np.unique(pool.truth[order], return_index=True)
            complete = len(first) == pool.classes
            return {
                "added": len(order),
                "labels_of_the_rarest": int(np.bincount(pool.truth[order]).min()),
                **empty,
                "classes_found_by_60": int((first < 60).sum()),
                "labels_until_all_classes": int(first.max()) + 1 if complete else None,
            }
        for _ in range(ROUNDS):
            annotator.label(EACH)
        annotator.close()
        counts = np.bincount(annotator.labels[annotator.labels >= 0], minlength=pool.classes)
        return {
            "added": EACH * ROUNDS,
            "labels_of_the_rarest": int(counts.min()),
            **judge(pool, annotator.labels),
            "classes_found_by_60": None,
            "labels_until_all_classes": None,
        }


def campaign(options: LabelLoop) -> None:
    about = provenance(threads=1)
    del about["load"], about["command"]
    places = {"fashion-mnist": options.fashion_mnist, "cifar10": options.cifar10}
    for name in options.settings:
        setting = SETTINGS[name]
        vectors = read(name, places.get(name), options.weights, options.cache)
        for seed, begin in itertools.product(options.seeds, options.begin):
            pool = draw(vectors, setting, seed)
            for strategy in options.strategies:
                if begin == "nothing" and strategy not in COLD:
                    continue
                key = {
                    "setting": name,
                    "features": vectors.features,
                    "begin": begin,
                    "strategy": strategy,
                    "seed": str(seed),
                }
                if has_row(options.csv, key):
                    continue
                started = time.process_time()
                numbers = run_cell(pool, strategy, seed, begin)
                row = {
                    **key,
                    "classes": pool.classes,
                    "labeled": pool.labeled if begin == "labels" else 0,
                    "pool": len(pool.truth),
                    "rarest_in_pool": int(np.bincount(pool.truth).min()),
                    **numbers,
                    "cpu_seconds": round(time.process_time() - started, 1),
                    **about,
                    "command": f"python benchmarks/label_loop.py --settings {name} --seeds {seed}",
                }
                append_row(options.csv, row, key)
                print(*key.values(), numbers, flush=True)


def table(options: LabelLoop) -> None:
    """Print means over seeds, and by how much daso label is ahead, with standard errors."""
    found = grouped(
        (row for row in read_csv(options.csv) if int(row["seed"]) in options.seeds),
        lambda row: (row["setting"], row["features"], row["begin"]),
        lambda row: row["strategy"],
    )
    for (setting, features, begin), strategies in found.items():
        print(f"\n{setting}, {features}, from {begin}\n")
        columns = (
            ("balanced_accuracy", "recall_few", "balanced_accuracy_logistic")
            if begin == "labels"
            else ("classes_found_by_60",)
        )
        print_heading("strategy", *columns, f"{OURS} ahead by")
        for strategy, rows in strategies.items():
            means = [np.mean([float(row[c]) for row in rows.values()]) for c in columns]
            shown = " | ".join(f"{mean:.1f}" for mean in means)
            ahead = ""
            if strategy != OURS and OURS in strategies:
                gained = (gains(strategies[OURS], rows, c) for c in columns)
                ahead = ", ".join(map(mean_and_error, gained))
            print(f"| {strategy} | {shown} | {ahead} |")
            if begin == "nothing":
                until = [row["labels_until_all_classes"] or "-" for row in rows.values()]
                print(f"| labels until all classes | {', '.join(until)} | |")


def timed(what: str, act: Callable[[], Any]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"| {what} | {1000 * wall:,.0f} | {1000 * cpu:,.0f} |", flush=True)


def scale(options: LabelLoop) -> None:
    """Print milliseconds, of the clock and of the processor, of a session's actions."""
    count, classes, random = options.images, options.classes, np.random.default_rng(0)
    truth = np.r_[np.arange(classes).repeat(2), random.integers(classes, size=count - 2 * classes)]
    centers = random.standard_normal((classes, 128)).astype(np.float32)
    features = np.empty((count, 128), dtype=np.float16)
    for at in range(0, count, 10_000):
        rows = truth[at : at + 10_000]
        features[at : at + 10_000] = centers[rows] + random.standard_normal((len(rows), 128))
    features /= 2**0.5
    data = cast(LabelingData, Numbered(truth, 2 * classes, classes))
    print(f"{count:,} images, {classes:,} classes\n")
    print_heading("what", "ms", "ms of the processor")
    with tempfile.TemporaryDirectory() as place, Journal.open(Path(place) / "j.jsonl") as journal:
        session = Session(data, journal, Embedding(features, "made up"))
        timed("first advice", session.wait)
        images: Iterator[int] = iter([one["image"] for one in session.suggest(200)])
        timed("suggest 20", lambda: session.suggest(20))

        def assign() -> None:
            image = next(images)
            session.assign([image], f"class {truth[image]}")

        for _ in range(3):
            timed("assign", assign)
        for _ in range(16):
            assign()
        timed("assign, with which a fit begins", assign)
        timed("assign during a fit", assign)
        timed("suggest 20 during a fit", lambda: session.suggest(20))
        timed("undo during a fit", session.undo)
        timed("the rest of the fit", session.wait)
        timed("similar 48", lambda: session.similar(5, 48))
        timed("believed 48", lambda: session.believed("class 3", 0, 48))
        timed("state", session.state)


def main(options: LabelLoop) -> None:
    torch.set_num_threads(1)
    if options.scale:
        scale(options)
    elif options.table:
        table(options)
    else:
        campaign(options)


if __name__ == "__main__":
    main(tyro.cli(LabelLoop))
