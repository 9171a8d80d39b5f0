"""The sweep example resumes a stopped trial and names the best one."""

from __future__ import annotations

import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from forked import finish, run_script, start

from daso.files import read_json, read_rows

optuna = pytest.importorskip("optuna")
JournalStorage = optuna.storages.JournalStorage
JournalFileBackend = optuna.storages.journal.JournalFileBackend
EXAMPLE = Path(__file__).parent.parent / "examples" / "sweep.py"
SPLIT = "--labeled-head 20 --unlabeled-head 40 --gamma-labeled 10 --gamma-unlabeled 10 --holdout 50"
TRAINING = "--batch 8 --network small-4 --evaluate-every 20 --steps 200 --device cpu"


VARIED = ("learning-rate=0.003:0.1:log", "method=supervised,fixmatch")


def sweep(out: Path, said: Path, *vary: str) -> BaseProcess:
    words = ["digits", "--out", str(out), "--trials", "2", "--vary", *(vary or VARIED)]
    words += [*SPLIT.split(), *TRAINING.split()]
    return start(run_script, EXAMPLE, words, {}, said)


def stop(out: Path, said: Path) -> None:
    """Start a sweep, and stop it once its first training has a checkpoint."""
    process = sweep(out, said)
    while not list(out.glob("runs/*/checkpoints/step-*.json")) and process.is_alive():
        time.sleep(0.02)
    process.terminate()
    finish(process)


def test_a_sweep_that_was_stopped_goes_on(tmp_path: Path) -> None:
    for number in range(5):  # this process may not have its turn before the training is over
        out = tmp_path / f"out-{number}"
        stop(out, said := tmp_path / f"said-{number}")
        if not list(out.glob("runs/*/summary.json")):
            break
    [run] = [path for path in out.glob("runs/*") if path.is_dir()]
    assert not (run / "summary.json").exists(), said.read_text()
    said = tmp_path / "said"
    assert finish(sweep(out, said)) == 0, said.read_text()
    printed = said.read_text()
    assert read_json(run / "environment.json")["resumed"][0]["from_step"] < 200
    runs = [path for path in out.glob("runs/*") if path.is_dir()]
    assert len(runs) == 2
    last = {
        str(path): read_rows(path / "metrics.jsonl")[-1]["holdout"]["balanced_accuracy"]
        for path in runs
    }
    best = printed.splitlines()[-1].rpartition(" in ")[2]
    assert last[best] == max(last.values())  # two may be equally good
    assert f"best: {last[best]:.1%} with" in printed
    config = read_json(Path(best) / "config.json")
    assert repr(config["train"]["learning_rate"]) in printed.splitlines()[-1]


def test_values_without_an_option_are_refused(tmp_path: Path) -> None:
    words = ["digits", "--out", str(tmp_path / "out"), "--vary", "learning-rate"]
    assert finish(start(run_script, EXAMPLE, words, {}, said := tmp_path / "said")) == 2
    assert "--vary learning-rate: must be OPTION=VALUES" in said.read_text()
    assert not (tmp_path / "out").exists()


def states(out: Path) -> list[str]:
    """Return the states of the trials, those that wait to be tried again included."""
    storage = JournalStorage(JournalFileBackend(str(out / "study.log")))
    study = optuna.load_study(study_name="sweep", storage=storage)
    return [trial.state.name for trial in study.get_trials()]


def test_a_training_that_fails_is_recorded_and_not_tried_again(tmp_path: Path) -> None:
    out, said = tmp_path / "out", tmp_path / "said"
    assert finish(sweep(out, said, "learning-rate=1e30")) == 1
    printed = said.read_text()
    assert "Traceback" not in printed
    assert "trial 0 failed with {'learning-rate': '1e30'}" in printed
    assert str(next(out.glob("runs/*.log"))) in printed
    assert printed.count("failed with these values before") == 1
    assert "no trial was completed" in printed
    assert states(out) == ["FAIL", "FAIL"]


def test_a_training_that_cannot_begin_ends_the_sweep(tmp_path: Path) -> None:
    out, said = tmp_path / "out", tmp_path / "said"
    for vary, status, reason in (
        ("network=nothing", 1, "correct the command"),
        ("learning-rate=0.1:low", 2, "--vary"),
        ("learning-rate=0.2:0.1", 2, "--vary"),
    ):
        assert finish(sweep(out / vary, said, vary)) == status, said.read_text()
        assert "Traceback" not in said.read_text()
        assert reason in said.read_text().splitlines()[-1]
        assert states(out / vary) == ["FAIL"]
