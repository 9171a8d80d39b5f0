"""Search the options of ``daso train`` with optuna, on one or several machines, resumably.

    pip install 'daso[sweep]'
    python examples/sweep.py photos/ --out sweeps/photos --trials 30 --steps 3000 \\
        --vary learning-rate=0.003:0.1:log threshold=0.5:0.98 method=fixmatch+la,fixmatch+la+daso

``--vary`` takes options with their values: ``LOW:HIGH``, ``LOW:HIGH:log`` or a list ``A,B,C``.
Other options are passed to every training. A trial is a run folder named by its values. It is
judged by its balanced accuracy on the hold-out, never on the test images. After four trials, one
that is worse than the median of the others at an evaluation is stopped.

The study is a journal in OUT, so the same command can be started on several machines that share the
folder. A trial whose process has died is started again and resumes from its checkpoint. One whose
training fails counts as a trial and is not tried again; if it cannot even begin, the sweep ends.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from daso.errors import InUseError
from daso.files import read_rows
from daso.train.folder.lock import lock_folder

FAILED = "failed"
"""Attribute of a trial whose training failed: why."""


class FailedError(Exception):
    """A training failed."""


def suggest(trial: Trial, name: str, values: str) -> Any:
    """Return a trial's value of an option, from LOW:HIGH, LOW:HIGH:log or A,B,C."""
    if ":" not in values:
        return trial.suggest_categorical(name, values.split(","))
    low, high, *log = values.split(":")
    return trial.suggest_float(name, float(low), float(high), log=log == ["log"])


def folder_of(out: Path, values: dict[str, Any]) -> Path:
    """Return the run folder of a trial, which depends on its values alone."""
    digits = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    return out / "runs" / digits


def is_running(folder: Path) -> bool:
    """Return whether a process is training in a run folder."""
    try:
        if folder.exists():
            lock_folder(folder).close()
    except InUseError:
        return True
    return False


def is_done(trial: FrozenTrial) -> bool:
    """Return whether a trial has a result, or none for good."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or FAILED in trial.user_attrs


def judge(row: dict[str, Any]) -> float | None:
    """Return the balanced accuracy on the hold-out of an evaluation; None for other rows."""
    return (row.get("holdout") or {}).get("balanced_accuracy")


def train(
    trial: Trial, source: str, values: dict[str, Any], options: list[str], folder: Path
) -> float:
    """Train or resume; return the last balanced accuracy on the hold-out."""
    arguments = ["resume", str(folder)]
    if not (folder / "config.json").exists():
        varied = [f"--{name}={value}" for name, value in values.items()]
        arguments = ["train", source, *options, *varied, "--out", str(folder)]
    command = [sys.executable, "-m", "daso", *arguments, "--quiet"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        folder.with_suffix(".log").open("a") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        seen = 0
        try:
            while process.poll() is None:
                time.sleep(0.5)
                for row in read_rows(folder / "metrics.jsonl"):
                    if row["step"] > seen and (value := judge(row)) is not None:
                        seen = row["step"]
                        trial.report(value, seen)
                        if trial.should_prune():
                            process.send_signal(signal.SIGTERM)  # it saves a checkpoint
                            raise optuna.TrialPruned
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
    if process.returncode:
        written = folder.with_suffix(".log")
        lines = written.read_text(encoding="utf-8", errors="replace").splitlines()
        reason = f"{lines[-1] if lines else 'no output'} (in {written})"
        if not (folder / "metrics.jsonl").exists():
            raise SystemExit(f"no training can begin: {reason}; correct the command")
        raise FailedError(reason)
    rows = read_rows(folder / "metrics.jsonl")
    values_on_holdout = [value for row in rows if (value := judge(row)) is not None]
    if not values_on_holdout:
        raise SystemExit("nothing is held out; add --holdout N")
    return values_on_holdout[-1]


def main() -> None:
    """Run trials until there are as many as asked for, and print the best."""
    parser = argparse.ArgumentParser(description="search the options of daso train")
    parser.add_argument("source")
    parser.add_argument("--vary", nargs="+", required=True, metavar="OPTION=VALUES")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    command, options = parser.parse_known_args()
    if wrong := [text for text in command.vary if "=" not in text]:
        parser.error(f"--vary {wrong[0]}: must be OPTION=VALUES")
    space = dict(text.split("=", 1) for text in command.vary)
    # Like Ctrl-C: the training saves a checkpoint before this process ends.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    command.out.mkdir(parents=True, exist_ok=True)
    journal = str(command.out / "study.log")
    storage = JournalStorage(JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal)))
    study = optuna.create_study(
        study_name="sweep",
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    for begun in study.get_trials(states=[TrialState.RUNNING]):
        if not is_running(folder_of(command.out, begun.params)):
            study.tell(begun.number, state=TrialState.FAIL)
            study.enqueue_trial(begun.params)
    while sum(map(is_done, trials := study.get_trials())) < command.trials:
        trial = study.ask()
        try:
            values = {name: suggest(trial, name, text) for name, text in space.items()}
        except ValueError as error:
            study.tell(trial, state=TrialState.FAIL)
            parser.error(f"--vary: {error}")
        try:
            if any(FAILED in other.user_attrs and other.params == values for other in trials):
                raise FailedError("it failed with these values before")
            value = train(trial, command.source, values, options, folder_of(command.out, values))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except (FailedError, SystemExit) as error:
            trial.set_user_attr(FAILED, str(error))
            study.tell(trial, state=TrialState.FAIL)
            if isinstance(error, SystemExit):
                raise
            print(f"trial {trial.number} failed with {values}: {error}", file=sys.stderr)
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            study.enqueue_trial(values)
            raise
        else:
            study.tell(trial, value)
            print(f"trial {trial.number}: {value:.1%} with {values}", flush=True)
    if not study.get_trials(states=[TrialState.COMPLETE]):
        raise SystemExit(f"no trial was completed; their logs are in {command.out / 'runs'}")
    best = study.best_trial
    print(f"best: {best.value:.1%} with {best.params}, in {folder_of(command.out, best.params)}")


if __name__ == "__main__":
    main()
