"""The tables that daso compare prints: no cell is cut, no name breaks within a part."""

from __future__ import annotations

import re

import pytest

from daso.cli.verbs.compare import _print_table

METHODS = (
    "supervised",
    "fixmatch+la+daso+mixture",
    "fixmatch+la+abc+daso+crt (evaluate-every 400)",
)
ROWS = [
    ["method", *(f"{method}: difference" for method in METHODS), "better in", "p (Holm)"],
    *([method, *["+16.7 (-155.0 to +188.4)"] * 3, "1 of 3", "< 0.001"] for method in METHODS),
]


@pytest.mark.parametrize("in_terminal", [False, True])
def test_cells_are_whole_however_wide_the_table(
    in_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if in_terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
    _print_table(ROWS, ROWS[0], "differences")
    said = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    words = said.split()
    assert words.count("0.001") == 3
    assert words.count("+188.4)") == 9
    assert "…" not in said
    begins = [line.split()[0] for line in said.splitlines() if line.strip()]
    if in_terminal:
        assert max(map(len, said.splitlines())) < sum(map(len, ROWS[0])), "names take lines"
        assert {"supervised", METHODS[1], "fixmatch+la+abc+daso+crt", "(evaluate-every"} <= {
            *begins
        }
        assert {"fixmatch+la+daso", "+mixture:", "fixmatch+la+abc", "+daso+crt"} <= {*words}
    else:
        for method in METHODS:
            assert f" {method}: difference " in said
            assert any(line.startswith(f"  {method} ") for line in said.splitlines())
