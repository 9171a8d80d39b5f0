"""Print a results file as the Markdown table of LEADERBOARD.md.

    python benchmarks/summarize.py results/lite.csv
    python benchmarks/summarize.py results/cifar10-lite.csv

Mean ± standard deviation over seeds, and the difference to a baseline of the same seeds (paired:
same split, same initial weights), with its standard error and the number of seeds in which it is
above zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from common import (
    Row,
    gains,
    grouped,
    mean_and_deviation,
    mean_and_error,
    print_heading,
    read_csv,
)

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


def setting_of(row: Row) -> str:
    return f"{row['setting']}, {row['network']}, {row['precision']}, {row['steps']} steps"


def name_of(row: Row) -> str:
    variant = row["variant"].removeprefix(row["method"])  # a campaign's begins with the method
    return " ".join(filter(None, (row["method"], variant.strip(","))))


def described(differences: Sequence[float]) -> str:
    if not any(differences):
        return ""
    better = sum(difference > 0 for difference in differences)
    count = f" ({better} of {len(differences)})" if len(differences) > 1 else ""
    return mean_and_error(differences) + count


def main(summarize: Summarize) -> None:
    settings = grouped(read_csv(summarize.results), setting_of, name_of)
    for setting, methods in sorted(settings.items()):
        print(f"\n**{setting}**\n")
        difference = f"difference to {summarize.baseline} ± standard error"
        print_heading("method", "seeds", *COLUMNS.values(), difference)
        baseline = methods.get(summarize.baseline, {})
        for name, seeds in methods.items():
            cells = [
                mean_and_deviation([float(row[c]) for row in seeds.values() if row[c]])
                for c in COLUMNS
            ]
            difference = described(gains(seeds, baseline))
            print(f"| {name} | {len(seeds)} | {' | '.join(cells)} | {difference} |")


if __name__ == "__main__":
    main(tyro.cli(Summarize))
