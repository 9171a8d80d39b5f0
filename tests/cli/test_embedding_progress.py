"""What is printed while images are embedded."""

from __future__ import annotations

import pytest

from daso.cli.terminal.counters import embedding_progress


def test_a_line_now_and_then_with_the_rate_and_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("daso.cli.terminal.counters.time.monotonic", lambda: now)
    report = embedding_progress()
    # 2,000 of 10,000 were there; the first 10 wait for an export, then 100 a second come.
    times = (0.0, 2000), (12.0, 2010), (15.0, 2310), (18.0, 2610), (19.0, 2710), (32.0, 4010)
    for now, done in times:  # noqa: B007
        report(done, 10_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "embedded 2,000 of 10,000 views of images",
        "embedded 2,010 of 10,000 views of images",
        "embedded 2,610 of 10,000 views of images, 100 a second, 1.2 minutes left",
        "embedded 4,010 of 10,000 views of images, 100 a second, 1.0 minutes left",
    ]
