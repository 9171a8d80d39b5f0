"""The benchmark of accuracy per minute: what it counts, and its conventional side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from daso.files import read_rows
from daso.nets.network import build_encoder
from tests.conftest import MakeFolder

WRITE = """
import json, sys
from pathlib import Path
run = Path(sys.argv[1])
(run / "checkpoints").mkdir(parents=True)
with (run / "metrics.jsonl").open("a") as file:
    for step, accuracy in ((0, 0.25), (5, 0.75), (9, 0.5)):
        row = {"event": "evaluate", "step": step, "test": {"balanced_accuracy": accuracy}}
        print(json.dumps(row), file=file)
        print(json.dumps({"event": "train", "step": step}), file=file)
(run / "checkpoints" / f"step-{int(sys.argv[2]):08}.json").write_text("{}")
"""


@pytest.fixture
def minutes(import_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return import_benchmark("minutes")


def test_a_command_is_followed_to_its_end(minutes: ModuleType, tmp_path: Path) -> None:
    # The last evaluation has no model on the disk.
    command = [sys.executable, "-c", WRITE, str(tmp_path / "run"), "5"]
    points, end = minutes.follow(command, tmp_path / "run", 60, threads=1, every=0.01)
    assert [point.accuracy for point in points] == [25, 75]
    assert end.accuracy == 75
    assert 0 <= points[0].wall_seconds <= points[-1].wall_seconds <= end.wall_seconds
    assert points[-1].core_seconds <= end.core_seconds


def test_it_is_stopped_when_its_budget_is_used(minutes: ModuleType, tmp_path: Path) -> None:
    # Its children count too: here a child uses the processor, not the command itself.
    busy = f"{WRITE}\nimport subprocess\nsubprocess.run([sys.executable, '-c', 'while True: pass'])"
    command = [sys.executable, "-c", busy, str(tmp_path / "run"), "0"]
    points, end = minutes.follow(command, tmp_path / "run", 0.4, threads=1, every=0.02)
    assert end is None
    assert [point.accuracy for point in points] == [25]


def test_a_command_that_fails_is_an_error(minutes: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('out of luck')"]
    with pytest.raises(RuntimeError, match="out of luck"):
        minutes.follow(command, tmp_path / "run", 60, threads=1, every=0.01)


def test_what_a_row_says(minutes: ModuleType, tmp_path: Path) -> None:
    curve = [minutes.Point(*values) for values in ((10, 12, 60.0), (20, 25, 80.0), (40, 50, 70.0))]
    options = minutes.Minutes(budget=50)
    row = minutes.summary(curve, None, options)
    assert float(row["area"]) == pytest.approx((10 * 60 + 20 * 80 + 10 * 70) / 50)
    assert (row["core_seconds_to_target"], row["wall_seconds_to_target"]) == ("20.0", "25.0")
    assert (row["core_seconds_to_first_model"], row["first_accuracy"]) == ("10.0", "60.00")
    assert (row["last_accuracy"], row["best_accuracy"]) == ("70.00", "80.00")
    assert row["core_seconds_whole_command"] == ""
    assert json.loads(row["curve"])[1] == [20, 25, 80]
    nothing = minutes.summary([], None, options)
    assert nothing.keys() == row.keys()
    assert (float(nothing["area"]), nothing["core_seconds_to_target"]) == (0, "")
    minutes.draw(
        [{"side": name, "curve": row["curve"]} for name in "aab"], tmp_path / "a.png", 77.6
    )
    assert (tmp_path / "a.png").stat().st_size > 5_000


def test_the_conventional_side_writes_models_and_rows(
    import_benchmark: Callable[[str], ModuleType],
    make_image_folder: MakeFolder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, module = make_image_folder(), import_benchmark("conventional_folder")
    tiny = {"network": "small-4", "batch": 4, "steps": 5, "evaluate_every": 2}
    module.main(module.Options(folder, tmp_path / "run", **tiny))
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 5]
    # The model that was written last gives the accuracy of the last row.
    state = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    encoder = build_encoder("small-4", 3, 12)
    head = torch.nn.Linear(encoder.dim, 3)
    model = torch.nn.ModuleDict({"encoder": encoder, "classifier": head}).eval()  # type: ignore[dict-item]
    model.load_state_dict(state)
    paths, labels, _ = module.by_class(folder / "test")
    normalization = module.Files(module.by_class(folder / "labeled")[0]).normalization()
    images = torch.stack([normalization(np.asarray(image)) for image in module.Files(paths)])
    with torch.no_grad():
        answers = head(encoder(images)).argmax(1)
    recall = [float((answers[labels == k] == k).float().mean()) for k in range(3)]
    assert rows[-1]["test"]["balanced_accuracy"] == pytest.approx(np.mean(recall))
    # Trying workers trains nothing that is kept.
    monkeypatch.setattr(module, "WORKERS", (0,))
    monkeypatch.setattr(module, "TRIAL_STEPS", 1)
    module.main(module.Options(folder, tmp_path / "unused", try_workers=True, **tiny))
    assert capsys.readouterr().out.strip() == "0"
    assert not (tmp_path / "unused").exists()
