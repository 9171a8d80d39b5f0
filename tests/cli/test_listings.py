"""``daso presets`` and ``daso methods``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from daso.catalog import ADDITIONS, METHODS
from daso.cli import main
from daso.presets.benchmarks import PRESETS, meant

Capture = pytest.CaptureFixture[str]


def printed(capsys: Capture, *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def printed_json(capsys: Capture, *arguments: str) -> Any:
    return json.loads(printed(capsys, *arguments, "--json"), parse_constant=pytest.fail)


def test_all_presets(capsys: Capture) -> None:
    lines = printed(capsys, "presets").splitlines()
    rows = {words[0]: words for words in map(str.split, lines) if words and words[0] in PRESETS}
    assert rows.keys() == PRESETS.keys()
    expected = "cifar10 1,236 9,922 100 1/100 0.3 250,000 wrn-28-2 2"
    assert rows["cifar10-n500-g100-reversed"][1:] == expected.split()
    assert rows["cifar10-n500-g100"][-5:] == ["1", "5-8", "11", "13", "15-17"]
    assert rows["stl10-n450-g20"][1:6] == ["stl10", "1,528", "own", "20", "unknown"]


def test_one_preset(capsys: Capture) -> None:
    shown = printed(capsys, "presets", "cifar10-n1500-g150")
    for text in (
        "3,496 images, 1,500 largest, 10 smallest",
        "training of fixmatch+daso",
    ):
        assert text in shown
    lines = {words[0]: words[1:] for words in map(str.split, shown.splitlines()) if words}
    assert lines["tables"] == ["1,", "14"]
    assert lines["dist_temperature"] == ["1.5", "cifar10-n1500-g150"]
    assert lines["learning_rate"] == ["0.03", "FixMatch"]
    assert lines["momentum"] == ["0.9", "general", "default"]
    assert lines["cutout"] == ["16", "images", "of", "32", "pixels"]
    found = printed_json(capsys, "presets", "stl10-n150-g10")
    assert (found["unlabeled"], found["holdout"], found["resolution"]) == (None, 500, 32)
    assert found["tables"] == [2, 5, 6, 7, 8, 11, 12, 13, 15, 16, 17]
    assert found["resolved"]["method"]["warmup_steps"] == {
        "value": 5000,
        "decided_by": "DASO, computed",
    }
    assert "reasons" not in found
    assert [preset["name"] for preset in printed_json(capsys, "presets")] == list(PRESETS)


def test_one_preset_with_another_method(capsys: Capture) -> None:
    shown = printed(capsys, "presets", "stl10-n150-g10", "--method", "remixmatch+darp")
    assert "training of remixmatch+estimate+darp" in shown
    lines = {words[0]: words[1:] for words in map(str.split, shown.splitlines()) if words}
    assert lines["align"] == ["False", "stl10-n150-g10"]
    assert "dist_temperature" not in lines
    assert main(["presets", "stl10-n150-g10", "--method", "remixmtch"]) == 2
    assert "Did you mean 'remixmatch'?" in capsys.readouterr().err


def test_an_unknown_preset(capsys: Capture) -> None:
    assert main(["presets", "cifar10-n500-g1000"]) == 2
    said = capsys.readouterr().err
    assert "Did you mean 'cifar10-n500-g100', 'cifar10-n500-g150'," in said
    assert "'cifar10-n1500-g100'" not in said


def test_the_presets_that_begin_alike_are_all_named() -> None:
    nearest = {
        "cifar10-n500-g10": ("cifar10-n500-g100", 4),
        "cifar10-n500-g100-unifrom": ("cifar10-n500-g100-uniform", 3),
        "stl10-n150": ("stl10-n150-g10", 2),
        "CIFAR10-n500-g100": ("cifar10-n500-g100", 1),
        "cifr10-n500-g100": ("cifar10-n500-g100", 1),
    }
    for name, (first, number) in nearest.items():
        said = meant(name)
        assert said.startswith(f" Did you mean {first!r}")
        assert sum(f"'{preset}'" in said for preset in PRESETS) == number
    assert meant("photographs") == ""


def test_all_methods(capsys: Capture) -> None:
    shown = printed(capsys, "methods")
    for name in [*METHODS, *ADDITIONS]:
        assert f"  {name} " in shown
    impossible = shown.partition("Not possible:")[2].strip().splitlines()
    guesses = "supervised + align, sharpen, daso, darp, crest-plus: it makes no guesses about unlabeled images"
    assert guesses in shown
    found = printed_json(capsys, "methods")
    assert found["method"].keys() == METHODS.keys()
    assert found["refiner"]["daso"]["description"].startswith("Blend a classifier's guesses")
    assert "arXiv 2106.05682" in found["refiner"]["daso"]["paper"]
    assert found["sampling"].keys() == {"class-balanced", "effective-number"}
    for text in ("--labeled-sampling", "class-balanced", "logit-adjusted", "at test time"):
        assert text in shown
    assert found["refused"]["fixmatch"].keys() & {"daso", "la", "abc"} == set()
    assert {"daso", "abc"} <= found["refused"]["supervised"].keys()
    said = {}  # method and addition, each once
    for line in filter(lambda line: " + " in line, impossible):
        method, _, rest = line.strip().partition(" + ")
        for name in rest.partition(":")[0].split(", "):
            assert (method, name) not in said
            said[method, name] = line
    assert said.keys() == {
        (method, name) for method, names in found["refused"].items() for name in names
    }


def test_every_method_and_part_says_what_it_is_and_where_it_is_from(capsys: Capture) -> None:
    found = printed_json(capsys, "methods")
    del found["refused"]
    for known in found.values():
        for name, part in known.items():
            assert part["description"].endswith("."), name
            assert part["paper"] or name == "supervised", name


def test_a_composed_method(capsys: Capture) -> None:
    shown = printed(capsys, "methods", "fixmatch+la+daso")
    for text in (
        "FixMatch (method)",
        "LogitAdjusted (labeled loss)",
        "DASO (refiner)",
        "--dist-temperature",
    ):
        assert text in shown
    found = printed_json(capsys, "methods", "fixmatch+la+daso")
    assert [part["kind"] for part in found["parts"]] == ["method", "labeled loss", "refiner"]
    defaults = {h["name"]: h["default"] for h in found["hyperparameters"]}
    assert {
        "threshold": 0.95,
        "queue_length": 256,
        "warmup_steps": None,
    }.items() <= defaults.items()
    assert all(h["help"] for h in found["hyperparameters"])


def test_a_method_of_ones_own(capsys: Capture, tmp_path: Path) -> None:
    code = '''
from daso.methods.supervised import Supervised

class Mine(Supervised):
    """Learns as I do."""
'''
    (tmp_path / "mine.py").write_text(code)
    found = printed_json(capsys, "methods", f"{tmp_path / 'mine.py'}:Mine")
    assert [part["description"] for part in found["parts"]] == ["Learns as I do."]


def test_what_does_not_go_together(capsys: Capture) -> None:
    assert main(["methods", "supervised+daso"]) == 2
    assert "makes no guesses" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 60, 100])
def test_no_line_is_longer_than_the_terminal(
    width: int, finished_run: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    monkeypatch.setenv("COLUMNS", str(width))
    for words in (
        ["methods"],
        ["methods", "fixmatch+daso"],
        ["presets"],
        ["presets", "cifar10-n500-g100"],
        ["compare", str(finished_run), "--out", "c"],
    ):
        monkeypatch.chdir(finished_run.parent)
        shown = re.sub(r"\x1b\[[0-9;]*m", "", printed(capsys, *words))
        assert max(map(len, shown.splitlines())) <= width, words
        content = {"methods": "fixmatch", "presets": "cifar10", "compare": "fixmatch"}
        assert content[words[0]] in shown.lower()
