"""What a run believes is there before it has ended: written now and then, and from the checkpoint when asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from daso.cli import main
from daso.data.source import Source
from daso.errors import RunError
from daso.files import read_json
from daso.train.beliefs import schedule as refresh
from daso.train.beliefs.schedule import SHARE, BeliefsWriter, refresh_beliefs
from daso.train.prepare import Prepared, prepare
from daso.train.run import train_run
from tests.conftest import MakeConfig

FILE = "beliefs.safetensors"


def step_of(folder: Path) -> int:
    with safe_open(folder / FILE, framework="numpy") as file:
        return int(json.loads(file.metadata()["beliefs"])["step"])


def as_if_killed(folder: Path, step: int) -> None:
    """Leave of a complete run what it would have left, killed after the checkpoint of a step."""
    for name in ("summary.json", "confusion.json", FILE):
        (folder / name).unlink()
    for path in (folder / "checkpoints").glob("step-*"):
        if int(path.stem.partition("-")[2]) > step:
            path.unlink()


def test_a_run_that_trains_has_beliefs_and_trains_the_same(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(
        "fixmatch+daso", steps=6, evaluate_every=2, method_options={"warmup_steps": 2}
    )
    list(train_run(prepare(config, digits), tmp_path / "plain"))
    monkeypatch.setattr(refresh, "SHARE", float("inf"))
    found = []
    for row in train_run(prepare(config, digits), tmp_path / "watched"):
        there = (tmp_path / "watched" / FILE).exists()
        found.append((row["event"], row["step"], step_of(tmp_path / "watched") if there else None))
    assert [step for event, _, step in found if event == "evaluate"] == [
        2,
        4,
        4,
    ]  # 6 is written at the end
    assert step_of(tmp_path / "watched") == 6
    name = "checkpoints/step-000000006.safetensors"
    plain, watched = (load_file(tmp_path / run / name) for run in ("plain", "watched"))
    assert plain.keys() == watched.keys()
    assert all(np.array_equal(plain[key], watched[key]) for key in plain)
    assert (tmp_path / "plain" / FILE).read_bytes() == (tmp_path / "watched" / FILE).read_bytes()


def test_a_short_run_writes_only_at_its_end(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    for _ in train_run(
        prepare(tiny_config("supervised", steps=4, evaluate_every=1), digits), tmp_path / "run"
    ):
        assert not (tmp_path / "run" / FILE).exists()
    assert (tmp_path / "run" / FILE).exists()


@pytest.mark.parametrize("cost", [0.5, 3.0, 40.0])
def test_no_more_than_its_share_of_the_time(
    prepared_digits: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cost: float
) -> None:
    """With an evaluation every 7 s that takes about as long, for its images, as writing does."""
    now, written, random = 0.0, [], np.random.default_rng(0)

    def write(*_: object) -> None:
        nonlocal now
        now += cost * random.uniform(0.8, 1.2)
        written.append(now)

    monkeypatch.setattr(refresh, "write_beliefs", write)
    looks = BeliefsWriter(tmp_path, lambda: now)
    prepared_digits.training.step = 1
    measuring = cost / refresh._relative_images(prepared_digits.data)
    for _ in range(3000):
        now += 7
        looks.see({"event": "train"}, prepared_digits)
        now += measuring
        looks.see({"event": "evaluate"}, prepared_digits)
        assert looks.spent <= 1.25 * SHARE * now
    assert looks.spent <= 1.02 * SHARE * now
    assert looks.spent >= 0.5 * SHARE * now or cost * 100 > now or cost < 1
    assert len(written) > 3


@pytest.mark.parametrize(
    ("cost", "first"), [(0.5, [1]), (15.0, [1]), (30.0, range(2, 24)), (1e6, [None])]
)
def test_the_first_comes_at_the_first_evaluation_where_the_whole_training_affords_it(
    prepared_digits: Prepared,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cost: float,
    first: Sequence[int | None],
) -> None:
    """With an evaluation every 75 s of a training of half an hour; later ones keep to their share."""
    now, evaluations, written = 0.0, 0, []

    def write(*_: object) -> None:
        nonlocal now
        now += cost
        written.append(evaluations)
        (tmp_path / FILE).touch()

    monkeypatch.setattr(refresh, "write_beliefs", write)
    monkeypatch.setattr(Prepared, "total_steps", 2000)
    looks = BeliefsWriter(tmp_path, lambda: now)
    monkeypatch.setattr(refresh, "_relative_images", lambda _: 4.0)
    measuring = cost / 4
    for step in range(80, 2000, 80):
        evaluations += 1
        prepared_digits.training.step = step
        now += 75
        prepared_digits.training.seconds = 75.0 * evaluations
        looks.see({"event": "train"}, prepared_digits)
        now += measuring
        looks.see({"event": "evaluate"}, prepared_digits)
    assert (written[0] if written else None) in first
    assert looks.spent <= SHARE * now


@pytest.fixture
def prepared_digits(tiny_config: MakeConfig, digits: Source) -> Prepared:
    return prepare(tiny_config("fixmatch+daso"), digits)


def test_from_the_checkpoint_they_are_what_the_end_would_have_written(finished_run: Path) -> None:
    wanted = (finished_run / FILE).read_bytes()
    (finished_run / FILE).unlink()
    assert refresh_beliefs(finished_run, pytest.fail) == 20
    assert (finished_run / FILE).read_bytes() == wanted


def test_of_a_killed_run_they_are_as_of_its_last_checkpoint(
    finished_run: Path, tmp_path: Path
) -> None:
    as_if_killed(finished_run, 15)
    before = {path: path.read_bytes() for path in sorted(finished_run.rglob("*")) if path.is_file()}
    assert (
        main(["report", str(finished_run), "--refresh", "--out", str(tmp_path / "page.html")]) == 0
    )
    assert step_of(finished_run) == 15
    assert {path: path.read_bytes() for path in before} == before
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for section in ("galleries", "label_next", "map", "calibration", "confusion"):
        assert f'<section id="{section}"' in text
    assert (tmp_path / "page-label-next.csv").is_file()


def test_the_best_network_is_relative_images_where_it_is_the_model(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = tiny_config("fixmatch", steps=8, evaluate_every=2, deploy="best", learning_rate=0.5)
    list(train_run(prepare(config, digits), run))
    wanted, deployed = (
        (run / FILE).read_bytes(),
        read_json(run / "summary.json")["deployed_step"],
    )
    (run / FILE).unlink()
    assert refresh_beliefs(run, pytest.fail) == deployed == step_of(run) or not wanted
    assert (run / FILE).read_bytes() == wanted


def test_a_run_without_checkpoint_and_changed_data_are_errors(
    finished_run: Path, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(finished_run, tmp_path / "bare"))
    shutil.rmtree(bare / "checkpoints")
    with pytest.raises(RunError, match="first evaluation"):
        refresh_beliefs(bare, pytest.fail)
    data = read_json(finished_run / "data.json")
    (finished_run / "data.json").write_text(json.dumps(data | {"split_fingerprint": "0" * 16}))
    before = (finished_run / FILE).read_bytes()
    with pytest.raises(RunError, match="has changed"):
        refresh_beliefs(finished_run, pytest.fail)
    assert (finished_run / FILE).read_bytes() == before


def test_options_of_a_refresh_go_with_it(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(finished_run), "--data", "photos"]) == 2
    assert "--data goes with --refresh" in capsys.readouterr().err
    assert not (finished_run / "report.html").exists()


@pytest.mark.process
def test_a_report_alone_imports_no_torch(finished_run: Path) -> None:
    import subprocess
    import sys

    code = "import sys; from daso.cli import main; status = main(sys.argv[1:]); print(status, 'torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code, "report", str(finished_run)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "0 False"
