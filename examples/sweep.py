"""Search the options of ``daso train`` with optuna; stopped, killed or joined by other machines, it goes on.

    pip install 'daso[sweep]'
    python examples/sweep.py photos/ --out sweeps/photos --trials 30 --steps 3000 \\
        --vary learning-rate=0.003:0.1:log threshold=0.5:0.98 method=fixmatch+la,fixmatch+la+daso

After ``--vary`` come options with their values: ``LOW:HIGH``, ``LOW:HIGH:log`` or a list ``A,B,C``; what the sweep does
not know goes to every training. A trial is a run folder, called by its values, and is judged by its balanced accuracy
on the hold-out, never on the test images; after the first four, one that is at some evaluation worse than the median of
the others there is stopped.

OUT is all there is: the study is a journal in it, so the same command may be started on several machines that share the
folder. A trial whose process is gone is tried again, and its training goes on from its checkpoint.
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
from optuna.trial import Trial, TrialState

from daso.errors import InUseError
from daso.files import read_rows
from daso.train.folder.lock import lock_folder


def suggest(trial: Trial, name: str, values: str) -> Any:
    """Return a trial's value of an option, from LOW:HIGH, LOW:HIGH:log or A,B,C."""
    if ":" not in values:
        return trial.suggest_categorical(name, values.split(","))
    low, high, *log = values.split(":")
    return trial.suggest_float(name, float(low), float(high), log=log == ["log"])


def folder_of(out: Path, values: dict[str, Any]) -> Path:
    """Return the run folder of a trial: the same for the same values."""
    digits = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    return out / "runs" / digits


def is_running(folder: Path) -> bool:
    """Tell whether a process trains in a run folder."""
    try:
        if folder.exists():
            lock_folder(folder).close()
    except InUseError:
        return True
    return False


def judge(row: dict[str, Any]) -> float | None:
    """Return the balanced accuracy on the hold-out of an evaluation, None of another row."""
    return (row.get("holdout") or {}).get("balanced_accuracy")


def train(
    trial: Trial, source: str, values: dict[str, Any], options: list[str], folder: Path
) -> float:
    """Train, or go on with a training; return its last balanced accuracy on the hold-out."""
    daso = [sys.executable, "-m", "daso"]
    new = [
        "train",
        source,
        *options,
        *(f"--{name}={value}" for name, value in values.items()),
        "--out",
        folder,
    ]
    command = [
        *daso,
        *(["resume", folder] if (folder / "config.json").exists() else new),
        "--quiet",
    ]
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
                            process.send_signal(
                                signal.SIGTERM
                            )  # it saves, and can be gone on with by hand
                            raise optuna.TrialPruned
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
    if process.returncode:
        raise RuntimeError(f"the training failed: see {folder.with_suffix('.log')}")
    found = [
        value for row in read_rows(folder / "metrics.jsonl") if (value := judge(row)) is not None
    ]
    if not found:
        raise SystemExit("nothing is held out: give --holdout N")
    return found[-1]


def main() -> None:
    """Run trials until there are as many as asked for, and print the best."""
    parser = argparse.ArgumentParser(description="search the options of daso train")
    parser.add_argument("source")
    parser.add_argument("--vary", nargs="+", required=True, metavar="OPTION=VALUES")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    wanted, options = parser.parse_known_args()
    space = dict(text.split("=", 1) for text in wanted.vary)
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # as Ctrl-C: the training saves, then this ends

    wanted.out.mkdir(parents=True, exist_ok=True)
    journal = str(wanted.out / "study.log")
    storage = JournalStorage(JournalFileBackend(journal, lock_obj=JournalFileOpenLock(journal)))
    study = optuna.create_study(
        study_name="sweep",
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        if not is_running(folder_of(wanted.out, trial.params)):
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
    while len(study.get_trials(states=[TrialState.COMPLETE, TrialState.PRUNED])) < wanted.trials:
        trial = study.ask()
        values = {name: suggest(trial, name, given) for name, given in space.items()}
        try:
            value = train(trial, wanted.source, values, options, folder_of(wanted.out, values))
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except BaseException:
            study.tell(trial, state=TrialState.FAIL)
            study.enqueue_trial(values)
            raise
        else:
            study.tell(trial, value)
            print(f"trial {trial.number}: {value:.1%} with {values}", flush=True)
    best = study.best_trial
    print(f"best: {best.value:.1%} with {best.params}, in {folder_of(wanted.out, best.params)}")


if __name__ == "__main__":
    main()
