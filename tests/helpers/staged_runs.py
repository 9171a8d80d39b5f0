"""Runs of several stages, and what their tests read of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from run_files import comparable, newest_tensors
from torch import Tensor

from daso.data.source import Source
from daso.files import read_json
from daso.train.config import RunConfig
from daso.train.prepare import prepare
from daso.train.run import train_run

Row = dict[str, Any]
CREST = {"generations": 3, "crest_power": 0.2}
OPTIONS: dict[str, dict[str, object]] = {
    "fixmatch+crest": {**CREST, "threshold": 0.2},
    "fixmatch+daso+crest-plus": {**CREST, "threshold": 0.2, "align_memory": 3},
    "remixmatch+crest-plus": CREST,
    "supervised+crt": {"retraining_steps": 5},
    "fixmatch+abc+crt": {"retraining_steps": 5, "threshold": 0.2},
    "fixmatch+darp+estimate": {
        "estimate_steps": 5,
        "threshold": 0.2,
        "darp_start": 0.3,
        "darp_period": 3,
    },
}
STEPS = 13
ENDS = {"crest": [4, 8, 13], "crest-plus": [4, 8, 13], "crt": [8, 13], "estimate": [5, 18]}
METHODS = list(OPTIONS)


def ends_of(method: str) -> list[int]:
    return ENDS[method.rpartition("+")[2]]


def make_staged(tiny_config: Callable[..., RunConfig], method: str, **train: object) -> RunConfig:
    options = {"steps": STEPS, "evaluate_every": 3, "log_every": 2, **train}
    return tiny_config(method, method_options=OPTIONS[method], **options)


class Finished:
    """A run that nobody disturbed, with the tensors that it saved at each evaluation."""

    def __init__(self, config: RunConfig, source: Source, folder: Path) -> None:
        self.folder = folder
        self.saved: dict[int, dict[str, Tensor]] = {}
        for row in train_run(prepare(config, source), folder):
            if row["event"] == "evaluate":
                self.saved[row["step"]] = newest_tensors(folder)
        self.rows = comparable(folder)
        self.summary = read_json(folder / "summary.json")


FindRun = Callable[[str], Finished]
