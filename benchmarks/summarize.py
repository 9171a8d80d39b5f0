"""Print a results file as the Markdown table of LEADERBOARD.md.

    python benchmarks/summarize.py results/lite.csv
    python benchmarks/summarize.py results/cifar10-lite.csv

Mean ± standard deviation over seeds, and the difference to a baseline of the same seeds (paired:
same split, same initial weights), with its standard error and the number of seeds in which it is
above zero.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from common import mean_and_deviation, read_csv

COLUMNS = {
    "balanced_accuracy": "balanced accuracy",
    "recall_many": "many",
    "recall_medium": "medium",
    "recall_few": "few",
    "balanced_accuracy_logit_adjusted": "logit-adjusted",
    "balanced_accuracy_last": "last",
    "balanced_accuracy_best_on_holdout": "best on hold-out",
}


@dataclass(frozen=True)
class Summarize:
    """Print a table for each setting of a results file."""

    results: Annotated[Path, tyro.conf.Positional]
    """CSV file."""
    baseline: str = "fixmatch"
    """Method that the differences are to."""


def paired(values: dict[str, float], baseline: dict[str, float]) -> str:
    """Describe the difference of the seeds that both have."""
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds or values == baseline:
        return ""
    difference = np.array([values[seed] - baseline[seed] for seed in seeds])
    if len(seeds) == 1:
        return f"{difference[0]:+.1f}"
    error = difference.std(ddof=1) / np.sqrt(len(seeds))
    return f"{difference.mean():+.1f} ± {error:.1f} ({(difference > 0).sum()} of {len(seeds)})"


def main(summarize: Summarize) -> None:
    settings: dict[str, dict[str, dict[str, dict[str, str]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in read_csv(summarize.results):
        setting = f"{row['setting']}, {row['network']}, {row['precision']}, {row['steps']} steps"
        variant = row["variant"].removeprefix(row["method"])  # a campaign's begins with the method
        name = " ".join(filter(None, (row["method"], variant.strip(","))))
        settings[setting][name][row["seed"]] = row
    for setting, methods in sorted(settings.items()):
        print(f"\n**{setting}**\n")
        difference = f"difference to {summarize.baseline} ± standard error"
        columns = ["method", "seeds", *COLUMNS.values(), difference]
        print(f"| {' | '.join(columns)} |")
        print("|---" * len(columns) + "|")
        accuracy = {
            name: {seed: float(row["balanced_accuracy"]) for seed, row in seeds.items()}
            for name, seeds in methods.items()
        }
        for name, seeds in methods.items():
            cells = [
                mean_and_deviation([float(row[c]) for row in seeds.values() if row[c]])
                for c in COLUMNS
            ]
            difference = paired(accuracy[name], accuracy.get(summarize.baseline, {}))
            print(f"| {name} | {len(seeds)} | {' | '.join(cells)} | {difference} |")


if __name__ == "__main__":
    main(tyro.cli(Summarize))
