"""The example of a training composed in Python, and the names that packages offer."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_loop.py"
PACKAGES = ("data", "losses", "nets", "plans", "refine", "terms", "train", "views")


def test_the_example_is_short_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    code = [line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(code) <= 60
    accuracy = runpy.run_path(str(EXAMPLE))["main"](steps=60)
    assert accuracy > 0.3  # of ten classes
    printed = capsys.readouterr().out
    assert printed.count("balanced accuracy") == 5
    assert "from the most frequent to the rarest class" in printed


def test_packages_offer_their_public_names() -> None:
    for name in PACKAGES:
        package = importlib.import_module(f"daso.{name}")
        for offered in package.__all__:
            assert not isinstance(getattr(package, offered), type(sys)), f"daso.{name}.{offered}"
            assert offered in dir(package)
        with pytest.raises(AttributeError, match="no_such_name"):
            _ = package.no_such_name


def test_importing_daso_and_its_light_packages_needs_no_torch() -> None:
    code = (
        "import sys, daso, daso.data, daso.train\n"
        "from daso.train import TrainOptions, ViewOptions\n"
        "assert 'fit' in dir(daso.train)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
