"""W&B and MLflow themselves get every number, also of a run that was killed and resumed."""

from __future__ import annotations

import importlib
import itertools
import json
import multiprocessing
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tracked_runs import ROWS, TINY, Capture, begun_run, cut_back

from daso.cli import main
from daso.report.runs import read_run
from daso.track import Tracking, _key, numbers_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return begun_run(tmp_path)


def killed_and_resumed(run: Path, kind: str) -> None:
    """Track a training that is killed after step 4 of 6 and resumed."""
    assert main(["train", "digits", *TINY, "--steps", "6", "--out", str(run), "--track", kind]) == 0
    cut_back(run, 4)
    assert main(["resume", str(run)]) == 0


def exact(run_folder: Path) -> dict[str, dict[int, float]]:
    """Return the numbers of a run's rows by name and step, as they are in double precision."""
    run = read_run(run_folder)
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in run.rows:
        for name, value in numbers_of(row, run.class_names).items():
            found[name][row["step"]] = value
    return dict(found)


def wandb_records(path: Path) -> Iterator[Any]:
    """Read the records of an offline run: protobuf messages in the log format of LevelDB."""
    record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    content, at, message = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # too little of a block for a head
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        message += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole message, or the end of one
            yield record.FromString(message)
            message = b""


def test_wandb_has_every_number_of_a_run_that_was_killed_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "photos"
    killed_and_resumed(run, "wandb")
    assert "failed" not in capsys.readouterr().err
    state = json.loads((run / "trackers.json").read_text())["wandb"]
    files = sorted((run / "wandb").glob(f"offline-run-*-{state['id']}/*.wandb"))
    assert len(files) == 2
    numbers: dict[str, dict[int, float]] = defaultdict(dict)
    for path in files:
        records = list(wandb_records(path))
        (begun,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        assert (begun.run_id, begun.project, begun.display_name) == (state["id"], "daso", "photos")
        settings = {update.key: json.loads(update.value_json) for update in begun.config.update}
        assert settings["train"]["steps"] == 6
        for record in records:
            if record.WhichOneof("record_type") == "history":
                values = {
                    i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item
                }
                for name, value in values.items():
                    numbers[name][values["step"]] = value
    assert {name: numbers[name] for name in exact(run)} == exact(run)


def test_wandb_keeps_warnings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    said: list[str] = []
    tracking = Tracking(["wandb"], folder, said.append)
    tracking.write({"event": "evaluate", "step": 3, "warnings": [{"message": "m", "advice": "a."}]})
    tracking.close()
    assert not any("failed" in line for line in said)
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    updates = [
        u
        for r in wandb_records(path)
        if r.WhichOneof("record_type") == "summary"
        for u in r.summary.update
    ]
    assert ("warning, step 3", '"m. a."') in [
        (u.key or u.nested_key[0], u.value_json) for u in updates
    ]


@pytest.fixture
def mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client of an SQLite file that trackers write to."""
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return lambda: mlflow.MlflowClient(tracking_uri=uri)


def test_mlflow_has_every_number_of_a_run_that_was_killed_and_resumed(
    tmp_path: Path, mlflow_store: Any, capsys: Capture
) -> None:
    killed_and_resumed(tmp_path / "photos", "mlflow")
    assert "failed" not in capsys.readouterr().err
    client = mlflow_store()
    (run,) = client.search_runs([client.get_experiment_by_name("daso").experiment_id])
    assert (run.info.run_name, run.info.status) == ("photos", "FINISHED")
    assert run.data.params["train.steps"] == "6"
    numbers: dict[str, dict[int, float]] = defaultdict(dict)
    for name in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, name):
            if metric.step in numbers[name] and "seconds" not in name and "per_second" not in name:
                assert numbers[name][metric.step] == metric.value  # the step that was trained twice
            numbers[name][metric.step] = metric.value
    assert numbers == {_key(name): values for name, values in exact(tmp_path / "photos").items()}


def track_one(folder: str) -> list[str]:
    """Track two rows of a run of its own, in a process of its own; return what was said."""
    said: list[str] = []
    tracking = Tracking(["mlflow"], Path(folder), said.append)
    for row in ROWS:
        tracking.write(row)
    tracking.close()
    return said


def test_processes_that_begin_together_do_not_break_mlflows_tables(
    tmp_path: Path, mlflow_store: Any
) -> None:
    folders = [begun_run(tmp_path / name) for name in ("one", "two")]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        said = list(itertools.chain(*pool.map(track_one, map(str, folders))))
    assert not any("failed" in line or "did not finish" in line for line in said)
    client = mlflow_store()
    runs = client.search_runs([client.get_experiment_by_name("daso").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["one", "two"]
    assert all(run.data.metrics["train/loss"] == 2 for run in runs)


def test_mlflow_in_a_folder_needs_its_permission_and_then_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    store = (folder / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    said = track_one(str(folder))
    if int(mlflow.__version__.split(".")[0]) >= 3:
        assert any("MLFLOW_ALLOW_FILE_STORE" in line for line in said) or len(said) == 1
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert not any("failed" in line for line in track_one(str(folder)))
    client = mlflow.MlflowClient(tracking_uri=store)
    runs = client.search_runs([client.get_experiment_by_name("daso").experiment_id])
    assert client.get_metric_history(runs[0].info.run_id, "train/loss")[-1].value == 2
