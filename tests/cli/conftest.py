"""Images to predict, and the command."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from PIL import Image
from prediction import COUNT, Predict, Rows

from daso.cli import main
from daso.data.source import Source


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, digits: Source) -> Path:
    """Return a folder with digits as PNG files, some of them a folder deeper."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "more").mkdir()
    for number, pixels in enumerate(digits.train.images[:COUNT, 0]):
        Image.fromarray(pixels).save(
            folder / ("more" if number % 4 == 0 else ".") / f"{number:03d}.png"
        )
    return folder


@pytest.fixture
def predict(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Return a function that predicts by the finished run, or another model; rows, and what is told."""

    def run(
        *arguments: str | Path, status: int = 0, model: Path = finished_run
    ) -> tuple[Rows, str]:
        assert main(["predict", str(model), *map(str, arguments), "--device", "cpu"]) == status
        captured = capsys.readouterr()
        return list(csv.DictReader(io.StringIO(captured.out))), captured.err

    return run
