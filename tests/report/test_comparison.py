"""Tables of own numbers beside published ones."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from daso.report.compare.with_paper import Comparison, Entry

TABLE = Comparison(
    "Table 0: of nothing",
    ("A note.", "Another one."),
    ("some-setting", "100%"),
    (
        ("A & B", "fixmatch", (Entry({0: 70.0, 2: 74.0}, (71.25, 0.5)), Entry({5: 12.345}, None))),
        ("C", "-", (Entry({}, (68.25, None)), Entry({}, None))),
    ),
)


def test_mean_and_sample_deviation() -> None:
    entry = TABLE.rows[0][2][0]
    assert (entry.mean, entry.std) == (72, pytest.approx(8**0.5))
    assert (entry.own_text, entry.paper_text) == ("72.0 ± 2.83 (2)", "71.2 ± 0.50")
    single, missing = TABLE.rows[0][2][1], TABLE.rows[1][2][0]
    assert (single.own_text, single.std, single.paper_text) == ("12.3 (1)", None, "-")
    assert (missing.own_text, missing.mean, missing.paper_text) == ("-", None, "68.25")


def test_markdown() -> None:
    assert TABLE.to_markdown().splitlines() == [
        "# Table 0: of nothing",
        "",
        "A note.",
        "Another one.",
        "",
        "| | some-setting | 100% |",
        "|---|---|---|",
        "| A & B | 72.0 ± 2.83 (2) / 71.2 ± 0.50 | 12.3 (1) / - |",
        "| C | - / 68.25 | - / - |",
    ]


def test_csv_has_all_digits() -> None:
    rows = list(csv.DictReader(io.StringIO(TABLE.to_csv())))
    assert [row["column"] for row in rows] == ["some-setting", "100%"] * 2
    assert rows[0] == {
        "row": "A & B",
        "method": "fixmatch",
        "column": "some-setting",
        "mean": "72.0",
        "std": "2.8284271247461903",
        "seeds": "0 2",
        "values": "70.0 74.0",
        "paper_mean": "71.25",
        "paper_std": "0.5",
    }
    assert (rows[1]["mean"], rows[1]["std"], rows[1]["paper_mean"]) == ("12.345", "", "")
    assert (rows[2]["mean"], rows[2]["seeds"], rows[2]["paper_mean"]) == ("", "", "68.25")


def test_latex_is_escaped() -> None:
    text = TABLE.to_latex()
    assert r"\begin{tabular}{lcc}" in text
    assert r" & some-setting & 100\% \\ \hline" in text
    assert r"A \& B & 72.0 $\pm$ 2.83 (2) & 12.3 (1) \\" in text
    assert r"\quad paper & \textit{71.2 $\pm$ 0.50} & \textit{-} \\" in text
    assert text.count("&") - text.count(r"\&") == 2 * (1 + 2 * len(TABLE.rows))


def test_the_files(tmp_path: Path) -> None:
    TABLE.write(tmp_path / "table-0")
    assert {path.name for path in tmp_path.iterdir()} == {
        "table-0.md",
        "table-0.csv",
        "table-0.tex",
    }
