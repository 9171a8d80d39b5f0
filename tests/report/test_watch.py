"""When a training is warned of, once each, from made rows and from those of real trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_rows import Row, evaluation, kinds, warnings_of, watched

from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.report.runs import read_run
from daso.report.warnings.run_facts import watched_run
from daso.report.warnings.watch import Watch, find_warnings
from daso.train.config import RunConfig
from daso.train.prepare import prepare
from daso.train.run import train_run


def test_nothing_is_said_of_a_training_that_goes_well() -> None:
    assert warnings_of(watched(options={"dist_temperature": 1.5}), evaluation) == []


def test_rows_of_training_and_runs_without_pseudo_labels_say_nothing() -> None:
    watch = Watch(watched(options={"dist_temperature": 1.5}))
    for step in range(50, 1001, 50):
        assert watch.see({"event": "train", "step": step, "loss": 1.0}) == []
        assert watch.see({"event": "evaluate", "step": step}) == []


def test_nothing_is_judged_in_the_first_hundred_steps() -> None:
    def row(step: int) -> Row:
        return evaluation(step, share=0.0)

    for steps, expected in ((100, []), (400, ["empty mask"])):
        watch = Watch(watched(steps=steps))
        assert [
            w["kind"] for step in range(4, steps + 1, 4) for w in watch.see(row(step))
        ] == expected


def test_stages_are_judged_one_by_one() -> None:
    def row(step: int) -> Row:
        empty = step > 500
        return evaluation(step, share=0.0 if empty else 0.5, stage=int(empty))

    (warning,) = warnings_of(watched(), row)
    assert warning["step"] == 500 + 400


def test_a_rolled_back_run_forgets_what_it_takes_back() -> None:
    watch = Watch(watched())
    for step in (*range(50, 351, 50), *range(100, 351, 50)):
        assert watch.see(evaluation(step, share=0.0)) == []
    assert kinds(watch.see(evaluation(400, share=0.0))) == ["empty mask"]


def test_a_resumed_run_says_nothing_twice() -> None:
    rows = [evaluation(step, confident=np.zeros(4), share=0.0) for step in range(50, 1001, 50)]
    whole = [Watch(watched(), rows[:n]).see(rows[n]) for n in range(len(rows))]
    assert [len(found) for found in whole] == [0] * 7 + [1] + [0] * 12


@pytest.fixture(scope="module")
def long_tailed_runs(tmp_path_factory: pytest.TempPathFactory, digits: Source) -> dict[str, Path]:
    """Return runs of fixmatch+daso on digits whose unlabeled images are distributed like the labeled, or not."""
    from daso.train.options import TrainOptions

    folders = {}
    for shape in ("consistent", "reversed"):
        split = SplitOptions(50, 70, 10, 10, shape, 0)  # type: ignore[arg-type]
        train = TrainOptions(
            steps=200, batch=32, ema_decay=0.95, network="small-8", device="cpu", evaluate_every=10
        )
        config = RunConfig(
            "digits", "fixmatch+daso", split=split, method_options={"threshold": 0.8}, train=train
        )
        folders[shape] = tmp_path_factory.mktemp("watched") / shape
        list(train_run(prepare(config, digits), folders[shape]))
    return folders


def test_t_dist_on_real_trainings(long_tailed_runs: dict[str, Path]) -> None:
    for shape, temperature, warned in (
        ("consistent", 1.5, False),
        ("consistent", 0.3, True),
        ("reversed", 1.5, True),
        ("reversed", 0.3, False),
    ):
        run = read_run(long_tailed_runs[shape])
        options = {**run.config["method_options"], "dist_temperature": temperature}
        config = {**run.config, "method_options": options}
        warnings = find_warnings(config, run.data, run.rows)
        assert ("T_dist" in kinds(warnings)) == warned, (shape, temperature)


def test_warnings_stand_in_the_rows_and_can_be_found_again(
    long_tailed_runs: dict[str, Path],
) -> None:
    found = {}
    for shape, folder in long_tailed_runs.items():
        run = read_run(folder)
        written = [{"step": r["step"], **w} for r in run.rows for w in r.get("warnings", [])]
        assert written == find_warnings(run.config, run.data, run.rows)
        found[shape] = kinds(written)
    assert "T_dist" in found["reversed"]
    assert "T_dist" not in found["consistent"]
    assert "starved classes" in found["consistent"]


def test_settings_of_a_run_folder(finished_run: Path, finished_supervised_run: Path) -> None:
    folder = read_run(finished_run)
    config, data = folder.config, folder.data
    run = watched_run(config, data)
    assert run.images_per_step == config["train"]["batch"] * config["train"]["unlabeled_ratio"]
    assert run.measured is not None
    assert run.measured_on == "test"
    assert run.measured.sum() == data["test"]
    assert run.labeled.sum() == pytest.approx(1)
    assert run.slots == ("supervised", "refine", "terms")
    supervised = read_run(finished_supervised_run)
    warnings = find_warnings(supervised.config, supervised.data, supervised.rows)
    assert {*kinds(warnings)} <= {"uncertain measure"}
    # A run of daso 0.1.0 or older records neither the method's slots nor all counts.
    unrecorded = {"method", "holdout_counts", "test_counts"}
    before = watched_run(config, {n: v for n, v in data.items() if n not in unrecorded})
    assert (before.measured, before.slots) == (None, ())
