"""``daso reproduce`` as a person would use it, on a few images and steps."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import command, finish, start

from daso.cli import main
from daso.errors import InUseError
from daso.files import read_json
from daso.reproduce.campaign import Campaign
from daso.reproduce.scales import SCALES
from daso.train.folder.checkpoint import newest_step
from daso.train.folder.lock import lock_run

Capture = pytest.CaptureFixture[str]
COLUMN = ["--columns", "cifar10-n500-g100"]


def arguments(out: Path, data: Path, *more: str) -> list[str]:
    places = ["--out", str(out), "--data", str(data)]
    return ["reproduce", *more, *COLUMN, "--scale", "smoke", "--device", "cpu", *places]


@pytest.fixture(scope="module")
def campaign(cifar10_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a campaign with FixMatch and DASO in Table 1, two seeds."""
    out = tmp_path_factory.mktemp("campaign") / "out"
    wanted = ["1", "--rows", "fixmatch", "FixMatch + DASO", "--seeds", "0", "1"]
    assert main(arguments(out, cifar10_folder, *wanted)) == 0
    return out


def summaries(out: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in out.rglob("summary.json")}


def test_a_table_is_printed_and_written(campaign: Path, capsys: Capture) -> None:
    before = summaries(campaign)
    assert len(before) == 4
    again = [*COLUMN, "--rows", "fixmatch+daso", "--seeds", "0", "1", "--out", str(campaign)]
    assert main(["reproduce", "1", *again]) == 0
    captured = capsys.readouterr()
    assert "2 runs in" in captured.err
    assert "2 of them complete" in captured.err
    for text in (
        "Table 1",
        "FixMatch + DASO",
        "(2)",
        "76.0 ± 0.37",
        "not comparable",
        "table-1.md",
    ):
        assert text in captured.out
    assert "Supervised" not in captured.out
    assert summaries(campaign) == before
    assert {path.name for path in campaign.glob("table-*")} == {
        "table-1.md",
        "table-1.csv",
        "table-1.tex",
    }
    with (campaign / "results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_other_tables_show_the_same_runs(campaign: Path, capsys: Capture) -> None:
    before = summaries(campaign)
    assert main(["reproduce", "5", "8", *COLUMN, "--out", str(campaign), "--table-only"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("(2)") == 3  # FixMatch and DASO in Table 5, T_dist 1.5 in Table 8
    assert "68.25" in printed
    assert summaries(campaign) == before
    assert (campaign / "table-8.tex").exists()


def test_a_row_is_wanted_by_the_name_that_the_list_shows(tmp_path: Path, capsys: Capture) -> None:
    wanted = "fixmatch+daso,blend=fixed"
    command = ["reproduce", "6", "--out", str(tmp_path / "new"), "--list", "--seeds", "0", "--rows"]
    assert main([*command, wanted]) == 0
    lines = [
        words for words in map(str.split, capsys.readouterr().out.splitlines()) if len(words) == 4
    ]
    assert {words[1] for words in lines[1:]} == {wanted}
    assert main([*command, "fixmatch+daso,blend=fixes"]) == 2
    assert f"Did you mean '{wanted}'" in capsys.readouterr().err


def test_the_list_changes_nothing(
    campaign: Path, cifar10_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert (
        main(["reproduce", "1", *COLUMN, "--out", str(campaign), "--list", "--seeds", "1,2"]) == 0
    )
    lines = capsys.readouterr().out.splitlines()
    states = {(words[1], words[2]): words[3] for words in map(str.split, lines) if len(words) == 4}
    assert states["fixmatch+daso", "1"] == "complete"
    assert states["fixmatch+daso", "2"] == states["supervised", "1"] == "missing"
    assert main([*arguments(tmp_path / "new", cifar10_folder, "1"), "--list"]) == 0
    assert not (tmp_path / "new").exists()


def test_figures(campaign: Path, capsys: Capture) -> None:
    assert main(["reproduce", "figures", "--out", str(campaign)]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == [
        f"cifar10-n500-g100-{name}.png" for name in ("pseudo-labels", "confusion", "accuracy")
    ]
    assert all((campaign / "figures" / name).stat().st_size > 5_000 for name in names)
    assert main(["reproduce", "figures", "--out", str(campaign / "nothing")]) == 2


REFUSED = [
    ("9", "'9'"),
    ("", "1, 2, 3"),
    ("1 --rows fixmach", "Did you mean 'fixmatch'?"),
    ("1 --columns cifar10-n500-g1000", "Did you mean 'cifar10-n500-g100'?"),
    ("5 --columns cifar10-n500-g150", "unknown column"),
    ("1 --jobs 0", "--jobs"),
    ("1 --wait", "--engine"),
    ("4 --weights nowhere.safetensors", "nowhere.safetensors"),
    ("1 --seeds 0 -1", "at least 0"),
    ("1 --seeds 2 0 2", "twice"),
    ("1 --seeds 0,1.5", "whole numbers"),
    ("figures --columns cifar10", "unknown column"),
]
"""Arguments, and a key word of the error."""


def test_what_is_refused(tmp_path: Path, capsys: Capture) -> None:
    violations = []
    for line, word in REFUSED:
        status = main(["reproduce", *line.split(), "--out", str(tmp_path / "out")])
        error = capsys.readouterr().err
        if status != 2 or word not in error or (tmp_path / "out").exists():
            violations.append((line, status, error))
    assert violations == []


def test_only_lists_of_numbers_are_split_at_commas(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("1,2")  # a folder may be named like a list
    assert main(["reproduce", "1,5", "--seeds", "3,4", "--out", str(folder), "--list"]) == 0
    lines = [words for words in map(str.split, capsys.readouterr().out.splitlines()) if words]
    assert {words[-2] for words in lines if words[-1] == "missing"} == {"3", "4"}
    Campaign.open(folder, "smoke").begin()
    assert main(["reproduce", "1", "--out", str(folder), "--scale", "lite"]) == 2
    assert "--scale smoke" in capsys.readouterr().err


def test_another_scale_of_the_same_folder_is_refused(campaign: Path, capsys: Capture) -> None:
    assert main(["reproduce", "1", "--scale", "lite", "--out", str(campaign)]) == 2
    assert "--scale smoke" in capsys.readouterr().err


def test_cells_that_fail_are_reported_at_the_end(
    cifar10_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    cells = "1 --rows supervised --columns cifar10-n500-g100 cifar100-n50-g10 --seeds 0 1"
    options = ["--scale", "smoke", "--data", str(cifar10_folder), "--device", "cpu"]
    assert main(["reproduce", *cells.split(), "--out", str(tmp_path / "out"), *options]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("cifar100: ") == 1  # both seeds lack the same files
    assert captured.err.index("cifar100: ") < captured.err.index("[1/")
    assert "not done:\n  2 runs of cifar100" in captured.err
    assert "(1)" not in captured.err
    assert (
        read_json(tmp_path / "out/runs/cifar10-n500-g100/supervised/seed-0/summary.json")["steps"]
        == 16
    )


def test_runs_of_another_process_are_left_to_it(
    campaign: Path, cifar10_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = Path(shutil.copytree(campaign, tmp_path / "out"))
    place = out / "runs" / "cifar10-n500-g100" / "fixmatch"
    shutil.rmtree(place / "seed-0")
    with lock_run(place / ".seed-0.lock"):
        assert (
            main(arguments(out, cifar10_folder, "1", "--rows", "fixmatch", "--seeds", "0", "1"))
            == 0
        )
    captured = capsys.readouterr()
    assert "left to other processes" in captured.err
    assert "\n  cifar10-n500-g100 fixmatch seed 0" in captured.err
    assert "not done" not in captured.err
    assert not (place / "seed-0").exists()


def test_a_complete_run_that_cannot_be_noted_does_not_stop_the_others(
    campaign: Path, cifar10_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = Path(shutil.copytree(campaign, tmp_path / "out"))
    (out / "results.csv").unlink()
    damaged = out / "runs" / "cifar10-n500-g100" / "fixmatch" / "seed-0" / "environment.json"
    damaged.write_text("{")
    assert main(arguments(out, cifar10_folder, "1", "--rows", "fixmatch", "--seeds", "0", "1")) == 1
    assert f"seed 0: {damaged} cannot be read" in capsys.readouterr().err
    with (out / "results.csv").open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1"]


def nobody_trains(out: Path) -> bool:
    try:
        for path in out.rglob("*.lock"):
            lock_run(path).close()
    except InUseError:
        return False
    return True


def stopped(words: list[str], said: Path, number: signal.Signals, begun: Callable[[], bool]) -> str:
    """Send a signal to the command once it has begun, and return what it says when it ends by it."""
    process = start(command, words, said)
    while not begun():
        assert process.is_alive(), said.read_text()
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, number)
    assert finish(process) == 128 + number
    text = said.read_text()
    assert "Traceback" not in text
    return text


def test_a_campaign_that_is_interrupted_goes_on(cifar10_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seeds = [str(seed) for seed in range(40)]
    words = arguments(out, cifar10_folder, "1", "--rows", "supervised", "--seeds", *seeds)
    said = stopped(
        [*words, "--jobs", "2"], tmp_path / "said", signal.SIGINT, lambda: bool(summaries(out))
    )
    assert "daso reproduce 1" in said
    assert nobody_trains(out)
    done = len(summaries(out))
    assert 1 <= done < 40
    few = arguments(out, cifar10_folder, "1", "--rows", "supervised", "--seeds", *seeds[: done + 2])
    assert main(few) == 0
    with (out / "results.csv").open(newline="") as file:
        found = {row["seed"] for row in csv.DictReader(file)}
    assert len(found) == len(summaries(out)) > done


@pytest.mark.parametrize(("jobs", "number"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_a_stopped_campaign_saves_the_runs_that_it_is_at(
    cifar10_folder: Path, tmp_path: Path, jobs: int, number: signal.Signals
) -> None:
    endless = dataclasses.replace(
        SCALES["smoke"], train={**SCALES["smoke"].train, "steps": 10**7, "evaluate_every": 10**6}
    )
    out = tmp_path / "out"
    Campaign(out, endless, cifar10_folder, "cpu").begin()
    words = arguments(out, cifar10_folder, "1", "--rows", "supervised", "--seeds", "0,1,2")
    said = stopped(
        [*words, "--jobs", str(jobs)],
        tmp_path / "said",
        number,
        lambda: len(list(out.rglob("metrics.jsonl"))) == jobs,
    )
    assert nobody_trains(out)
    runs = list(out.rglob("config.json"))
    assert len(runs) == said.count("saved at step") == jobs
    assert all(
        newest_step(path.parent / "checkpoints") for path in runs
    )  # long before an evaluation
