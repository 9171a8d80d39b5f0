"""What a resumed run makes of a folder that was damaged, changed or cut off."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_files import comparable, contents, edit, rewind

from daso.errors import DasoError, RunError
from daso.files import read_json
from daso.train.config import RunConfig
from daso.train.prepare import prepare_again
from daso.train.run import resume_run

MakeConfig = Callable[..., RunConfig]
Row = dict[str, Any]


def test_resuming_a_complete_run_changes_nothing(finished_run: Path) -> None:
    before = contents(finished_run)
    prepared, rows = resume_run(finished_run, pytest.fail)
    assert list(rows) == []
    assert prepared.training.step == 20
    assert contents(finished_run) == before


@pytest.mark.parametrize(
    "cut",
    [b"", b'{"event": "train", "step": 17, "lo', b'{"event": "train", "step": 20}\n{"', bytes(40)],
)
def test_rows_after_the_checkpoint_and_a_cut_off_row_are_written_again(
    finished_run: Path, cut: bytes
) -> None:
    expected = comparable(finished_run)
    rewind(finished_run)
    metrics = finished_run / "metrics.jsonl"
    metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[:6]) + cut)
    prepared, rows = resume_run(finished_run, pytest.fail)
    assert prepared.training.step == 15
    assert [(row["event"], row["step"]) for row in rows] == [("train", 20), ("evaluate", 20)]
    assert comparable(finished_run) == expected
    assert read_json(finished_run / "summary.json")["steps"] == 20


def test_a_damaged_row_in_the_middle_is_a_run_error(finished_run: Path) -> None:
    metrics = finished_run / "metrics.jsonl"
    first, _, *rest = metrics.read_bytes().splitlines(keepends=True)
    for garbage in (b"no JSON\n", b"\xff\xfe\x00\n", b"3\n", b'{"event": "train"}\n'):
        metrics.write_bytes(first + garbage + b"".join(rest))
        before = contents(finished_run)
        with pytest.raises(RunError, match=r"metrics\.jsonl"):
            list(resume_run(finished_run)[1])
        assert contents(finished_run) == before


def test_a_damaged_checkpoint_costs_only_its_steps(finished_run: Path) -> None:
    expected, before = comparable(finished_run), contents(finished_run)
    newest = finished_run / "checkpoints" / "step-000000020.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    warnings: list[str] = []
    prepared, rows = resume_run(finished_run, warnings.append)
    assert prepared.training.step == 15
    assert "step-000000020" in warnings[0]
    list(rows)
    assert comparable(finished_run) == expected
    name = "checkpoints/step-000000020.safetensors"
    assert contents(finished_run)[name] == before[name]


def test_a_run_of_damaged_checkpoints_only_is_an_error(finished_run: Path) -> None:
    for path in (finished_run / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"")
    before = contents(finished_run)
    with pytest.raises(RunError, match="every checkpoint"):
        resume_run(finished_run)
    assert contents(finished_run) == before


@pytest.mark.parametrize("cut_off", [False, True], ids=["no checkpoint", "the first cut off"])
def test_a_run_without_a_whole_checkpoint_starts_anew_with_a_warning(
    finished_supervised_run: Path, cut_off: bool
) -> None:
    expected = comparable(finished_supervised_run)
    checkpoints = finished_supervised_run / "checkpoints"
    if cut_off:
        _, *others = sorted(checkpoints.glob("*.safetensors"))
        for path in (*others, *checkpoints.glob("*.json")):
            path.unlink()
    else:
        shutil.rmtree(checkpoints)
    warnings: list[str] = []
    list(resume_run(finished_supervised_run, warnings.append)[1])
    assert "from the beginning" in warnings[0]
    assert comparable(finished_supervised_run) == expected


def test_a_run_whose_vouchers_are_all_lost_does_not_start_anew(finished_run: Path) -> None:
    for path in (finished_run / "checkpoints").glob("*.json"):
        path.unlink()
    before = contents(finished_run)
    with pytest.raises(RunError, match="damaged"):
        resume_run(finished_run)
    assert contents(finished_run) == before


def test_no_run_folder(tmp_path: Path) -> None:
    for folder in ("missing", ""):
        with pytest.raises(RunError, match="is not a run folder"):
            resume_run(tmp_path / folder)


WRONG: list[tuple[Callable[[Row], object], str]] = [
    (lambda c: c.update(metod="x"), "unknown key 'metod'.*'method'"),
    (
        lambda c: c["train"].update(learning_rat=1),
        "train: unknown key 'learning_rat'.*'learning_rate'",
    ),
    (lambda c: c["split"].update(holdot=1), "split: unknown key 'holdot'.*'holdout'"),
    (lambda c: c["method_options"].update(treshold=1), "no option 'treshold'.*'threshold'"),
    (lambda c: c["train"].update(steps=0), "steps"),
    (lambda c: c["train"].update(steps="sixty"), "steps|train"),
    (lambda c: c["train"].update(schedule="cosin"), "schedule"),
    (lambda c: c.update(method="fixmach"), "Did you mean 'fixmatch'"),
    (lambda c: c.update(train=[1]), "train: expected an object"),
    (lambda c: c.update(method_options=[1]), "method_options"),
    (lambda c: c.update(method=None), "method"),
    (lambda c: c.pop("source"), "source"),
    (lambda c: c.pop("method"), "method"),
]


def test_a_wrong_configuration_is_an_error_that_helps(finished_run: Path) -> None:
    original = (finished_run / "config.json").read_bytes()
    for change, message in WRONG:
        (finished_run / "config.json").write_bytes(original)
        edit(finished_run / "config.json", change)
        before = contents(finished_run)
        with pytest.raises(DasoError, match=message):
            list(resume_run(finished_run)[1])
        assert contents(finished_run) == before, message


def test_a_damaged_file_is_a_run_error_that_names_it(finished_run: Path) -> None:
    for name in ("data.json", "config.json"):
        for content in (b"", b"{", b"[]", b"\xff\xfe", b"null"):
            (finished_run / name).write_bytes(content)
            with pytest.raises(RunError, match=name.replace(".", r"\.")):
                resume_run(finished_run)


def test_changed_data_is_detected(finished_run: Path) -> None:
    before = contents(finished_run)
    edit(finished_run / "data.json", lambda data: data["images_fingerprints"].update(test="other"))
    with pytest.raises(RunError, match=r"data of .* has changed"):
        resume_run(finished_run)
    (finished_run / "data.json").write_bytes(before["data.json"])
    assert contents(finished_run) == before


def test_an_option_that_a_part_got_later_changes_no_configuration(finished_run: Path) -> None:
    config = RunConfig.read(finished_run)
    options = dict(config.method_options)
    assert options.pop("threshold") is not None
    older = dataclasses.replace(config, method_options=options)
    assert older.fingerprint() != config.fingerprint()
    assert prepare_again(finished_run, older).config.fingerprint() == older.fingerprint()


def test_a_checkpoint_of_another_configuration_says_so(finished_run: Path) -> None:
    rewind(finished_run)
    original = (finished_run / "config.json").read_bytes()
    changes: dict[str, Callable[[Row], object]] = {
        "network": lambda c: c["train"].update(network="small-8"),
        "method": lambda c: c.update(method="fixmatch", method_options={}),
        "queue length": lambda c: c["method_options"].update(queue_length=11),
        "split": lambda c: c["split"].update(labeled_head=21),
        # The tensors fit where these differ.
        "threshold": lambda c: c["method_options"].update(threshold=0.5),
        "momentum": lambda c: c["train"].update(momentum=0.5),
        "batch": lambda c: c["train"].update(batch=4),
        "cutout": lambda c: c["augmentation"].update(cutout=0),
    }
    for name, change in changes.items():
        (finished_run / "config.json").write_bytes(original)
        edit(finished_run / "config.json", change)
        before = contents(finished_run)
        with pytest.raises(RunError, match="configuration"):
            list(resume_run(finished_run)[1])
        assert contents(finished_run) == before, name
