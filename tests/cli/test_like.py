"""``daso train --like``: a run again from its folder alone, and what differs is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_files import edit
from safetensors.numpy import load_file

from daso.cli import main
from daso.cli.training import like
from daso.data.source import Source
from daso.files import read_json, read_rows
from daso.train.config import RunConfig
from daso.train.prepare import prepare
from daso.train.run import train_run

MakeConfig = Callable[..., RunConfig]
Capture = pytest.CaptureFixture[str]


WITHOUT_PICTURES = """
import sys, types
sys.modules["daso.report.figures.draw"] = types.SimpleNamespace(draw_run=lambda folder: [])
from daso.cli import main
sys.exit(main())
"""
"""The command line; Matplotlib takes longer than a tiny training."""


def outcome(folder: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    tensors = load_file(max((folder / "checkpoints").glob("*.safetensors")))
    times = ("seconds", "steps_per_second")
    rows = [
        {k: v for k, v in row.items() if k not in times}
        for row in read_rows(folder / "metrics.jsonl")
    ]
    return {name: value.tobytes() for name, value in tensors.items()}, rows


def differences(folder: Path) -> dict[str, list[str]]:
    return dict(read_json(folder / "environment.json")["like"]["differs"])


def test_another_process_repeats_a_run_bit_for_bit(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    # Elsewhere, and with other hashes of names.
    command = [sys.executable, "-c", WITHOUT_PICTURES, "train"]
    command += ["--like", str(finished_run), "--out", str(out)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert outcome(out) == outcome(finished_run)
    assert read_json(out / "config.json") == read_json(finished_run / "config.json")
    assert differences(out)["options"] == differences(out)["data"] == []
    assert ", options: " not in done.stderr


def test_a_path_is_said_as_it_is_written() -> None:
    assert like._shown("fötos") == '"fötos"'
    assert like._shown("\udcff") == '"\\udcff"'


def test_options_that_are_given_differ_and_nothing_else(
    finished_run: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "other"
    options = ["--seed", "3", "--threshold=0.4", "--steps", "5"]
    assert main(["train", "--like", str(finished_run), *options, "--out", str(out)]) == 0
    before, now = read_json(finished_run / "config.json"), read_json(out / "config.json")
    assert now["train"] == before["train"] | {"seed": 3, "steps": 5}
    assert now["method_options"] == before["method_options"] | {"threshold": 0.4}
    assert {k: v for k, v in now.items() if k not in ("train", "method_options")} == {
        k: v for k, v in before.items() if k not in ("train", "method_options")
    }
    found = differences(out)
    assert found["options"] == [
        "--threshold 0.2, now 0.4",
        "--seed 0, now 3",
        "--steps 20, now 5",
    ]
    assert found["data"] == []  # the seed decides the split, of the same images
    assert "options: --threshold 0.2, now 0.4; --seed 0, now 3" in capsys.readouterr().err


def test_another_method_keeps_what_it_knows(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "other"
    assert (
        main(["train", "--like", str(finished_run), "--method", "supervised", "--out", str(out)])
        == 0
    )
    before, now = read_json(finished_run / "config.json"), read_json(out / "config.json")
    assert (now["method"], now["method_options"], now["split"]) == (
        "supervised",
        {},
        before["split"],
    )
    assert (before["train"]["learning_rate"], now["train"]["learning_rate"]) == (0.03, 0.1)
    out = tmp_path / "fixmatch"
    assert (
        main(["train", "--like", str(finished_run), "--method", "fixmatch", "--out", str(out)]) == 0
    )
    now = read_json(out / "config.json")
    assert now["method_options"]["threshold"] == 0.2
    assert now["train"] == before["train"]


def test_a_run_on_files_that_have_moved_and_changed(
    make_image_folder: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    images = make_image_folder()
    options = (
        "--method fixmatch --network small-4 --steps 2 --batch 4 --threshold 0.1 --device cpu --out"
    )
    assert main(["train", str(images), *options.split(), str(tmp_path / "run")]) == 0
    elsewhere = images.rename(tmp_path / "elsewhere")
    like = ["train", "--like", str(tmp_path / "run")]
    assert main([*like, "--out", str(tmp_path / "lost")]) == 1
    assert not (tmp_path / "lost").exists()
    line = [*like, "--data", str(elsewhere)]
    assert main([*line, "--out", str(tmp_path / "moved")]) == 0
    assert outcome(tmp_path / "moved") == outcome(tmp_path / "run")
    assert [text.partition(" ")[0] for text in differences(tmp_path / "moved")["options"]] == [
        "source"
    ]
    capsys.readouterr()
    next((elsewhere / "unlabeled").rglob("*.png")).unlink()
    assert main([*line, "--out", str(tmp_path / "changed")]) == 0
    said = capsys.readouterr().err
    number = read_json(tmp_path / "run" / "data.json")["unlabeled"]
    assert f"data: {number} -> {number - 1} unlabeled images" in said


def test_images_are_compared_whatever_the_seed_and_the_hold_out(
    make_image_folder: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    images = make_image_folder(test=0, val=0)
    options = "--method fixmatch --network small-4 --steps 2 --batch 4 --device cpu --out"
    assert main(["train", str(images), *options.split(), str(tmp_path / "run")]) == 0
    like = ["train", "--like", str(tmp_path / "run")]
    others = (["--seed", "5"], ["--holdout", "3"], ["--size", "8"])
    for number, more in enumerate(others):
        assert main([*like, *more, "--out", str(tmp_path / f"same-{number}")]) == 0
        assert differences(tmp_path / f"same-{number}")["data"] == []
        assert read_json(tmp_path / f"same-{number}" / "data.json") != read_json(
            tmp_path / "run" / "data.json"
        )
    image = images / "labeled" / "red" / "001.png"
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    capsys.readouterr()
    assert main([*like, "--seed", "5", "--out", str(tmp_path / "changed")]) == 0
    (change,) = differences(tmp_path / "changed")["data"]
    assert "other images, labels or order" in change
    assert change in capsys.readouterr().err


def test_another_environment_is_told(finished_run: Path, tmp_path: Path, capsys: Capture) -> None:
    path = finished_run / "environment.json"
    edit(path, lambda environment: environment.update(torch="1.4.0", threads=99))
    out = tmp_path / "again"
    assert main(["train", "--like", str(finished_run), "--steps", "2", "--out", str(out)]) == 0
    found = "; ".join(differences(out)["environment"])
    assert "torch 1.4.0, now 2" in found
    assert "threads 99, now 1" in found
    assert "torch 1.4.0, now 2" in capsys.readouterr().err


def test_a_run_that_is_resumed_elsewhere_says_so(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "run"
    rows = train_run(prepare(tiny_config("supervised"), digits), folder)
    next(row for row in rows if row["event"] == "evaluate")
    rows.close()
    path = folder / "environment.json"
    edit(path, lambda environment: environment.update(numpy="1.2.3"))
    assert main(["resume", str(folder)]) == 0
    assert "numpy 1.2.3, now" in capsys.readouterr().err


def test_a_method_of_ones_own_that_has_changed_is_told(tmp_path: Path, capsys: Capture) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from daso.methods.supervised import Supervised\n\n\nclass Own(Supervised):\n    'Mine.'\n"
    )
    options = ["--network", "small-4", "--steps", "2", "--batch", "4", "--device", "cpu", "--out"]
    assert main(["train", "digits", "--method", f"{own}:Own", *options, str(tmp_path / "run")]) == 0
    own.write_text(own.read_text() + "\n# changed\n")
    line = ["train", "--like", str(tmp_path / "run"), "--out", str(tmp_path / "again")]
    capsys.readouterr()
    assert main(line) == 0
    assert "environment: own files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        (["--like", "nowhere"], 1, "is not a run folder"),
        (["--like", "RUN", "--unlabeled", "."], 2, "omit --unlabeled"),
        (["--like", "RUN", "--method", "fixmach"], 2, "fixmatch"),
    ],
)
def test_what_cannot_be_repeated(
    finished_run: Path, tmp_path: Path, capsys: Capture, line: list[str], status: int, message: str
) -> None:
    words = [str(finished_run) if word == "RUN" else word for word in line]
    assert main(["train", *words, "--out", str(tmp_path / "out")]) == status
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
