"""The speed benchmark: it runs, and what it compares ours with computes the same thing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture
def modules(import_benchmark: Callable[[str], ModuleType]) -> tuple[ModuleType, ...]:
    return tuple(map(import_benchmark, ("steps", "conventional")))


def test_quick_run_writes_every_number(
    import_benchmark: Callable[[str], ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result, rows = tmp_path / "speed.json", tmp_path / "speed.csv"
    speed = import_benchmark("speed")
    speed.main(speed.Speed(quick=True, json=result, csv=rows))
    printed = capsys.readouterr().out
    numbers = json.loads(result.read_text(encoding="utf-8"))
    assert numbers["limits"].keys() == {"float32", "bfloat16", "copy"}
    (case,) = numbers["settings"]["tiny"].values()
    sides = case["variants"]
    assert case["workers"] in (0, 1, 2)
    assert "conventional: float32, joint batch norm, eager" in sides
    assert "float32, joint batch norm, eager" in sides
    for label, side in sides.items():
        assert len(side["seconds"]) == 2
        assert side["times_conventional"]["low"] <= side["times_conventional"]["median"]
        for part in ("data", "forward", "EMA features", "backward", "optimizer", "moving average"):
            assert side["parts"][part] >= 0
        assert min(side["shares_of_limit"]) > 0
        assert label in printed
    assert all(value > 0 for value in case["flops"].values())
    assert numbers["own_work"]["10"]["milliseconds"].keys() == {"conventional", "ours"}
    assert numbers["overhead"]["share_of_run"].keys() < sides.keys()
    assert numbers["overhead"]["seconds"]["float32"].keys() == {
        "evaluation",
        "checkpoint and logging",
    }
    assert numbers["memory"]["float32, joint batch norm, eager"]["training"] > 0
    assert "weak view apart" in printed
    assert all(spread["low"] > 0 for spread in numbers["views"].values())

    with rows.open(newline="", encoding="utf-8") as file:
        steps = [
            row
            for row in csv.DictReader(file)
            if row["measured"].startswith("step, times conventional, memory kept")
        ]
    assert len(steps) == len(sides) - 1  # all but the conventional one
    for row in steps:
        label = f"{row['precision']}, {row['batch_norm']}, {row['way']}"
        times = sides[label]["times_conventional"]
        assert [float(row[name]) for name in ("median", "low", "high")] == pytest.approx(
            [times[name] for name in ("median", "low", "high")], rel=1e-3
        )
        assert all(
            row[name] for name in ("setting", "method", "classes", "hardware", "torch", "command")
        )


@pytest.fixture
def _float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute in float64, where rounding hides no difference."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def named(encoder: torch.nn.Module, head: torch.nn.Module) -> dict[str, torch.Tensor]:
    heads = {f"head.{name}": value for name, value in head.state_dict().items()}
    return {**encoder.state_dict(), **heads}


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("method", ["fixmatch", "fixmatch+daso"])
@pytest.mark.parametrize(("network", "side"), [("small-4", 8), ("wrn-10-1", 16)])
def test_conventional_pipeline_computes_what_ours_does(
    modules: tuple[ModuleType, ...], method: str, network: str, side: int
) -> None:
    steps, conventional = modules
    case = steps.Case(steps.Setting(network, 8, 3, side), method, 4, "cpu", "wall")
    # Low enough for pseudo-labels from the start; the histogram is renewed within the test.
    options: dict[str, Any] = {"threshold": 0.3}
    daso = None
    if "daso" in method:
        # Longer than a class's images of one batch, shorter than those of all.
        options |= {"warmup_steps": 1, "histogram_period": 2, "queue_length": 5}
        daso = conventional.ConventionalDASO(4, queue_length=5, warmup_steps=1, histogram_period=2)
    prepared = case.prepare(steps.Variant("float32"), case.source(), options)
    training = prepared.training
    ours = training.network
    theirs = conventional.Conventional(ours.encoder, ours.heads["class"], daso, threshold=0.3)
    normalization = conventional.Normalization(prepared.data.mean, prepared.data.std)
    normalize = normalizer(normalization, steps.pillow_layout)
    for step in range(8):
        batch = prepared.batches(step)
        (labeled,), (weak, strong) = batch.labeled, batch.unlabeled
        images = conventional.ImageBatch(
            normalize(labeled), batch.labels, normalize(weak), normalize(strong)
        )
        expected = theirs.advance(images)
        result, _ = training.advance(batch)
        assert result.losses.keys() == expected.keys()
        for name, loss in result.losses.items():
            torch.testing.assert_close(
                loss, expected[name], rtol=1e-7, atol=1e-9, msg=f"{step}: {name}"
            )
        assert result.losses["unlabeled"] > 0  # it takes part in what is compared
    pairs = ((ours, theirs.model), (training.average.network, theirs.average))
    for network_of, other in pairs:
        mine = named(network_of.encoder, network_of.heads["class"])
        state = named(other["encoder"], other["classifier"])
        assert mine.keys() == state.keys()
        for name, value in mine.items():
            torch.testing.assert_close(value, state[name], rtol=1e-6, atol=1e-8, msg=name)


def normalizer(normalization: Any, layout: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that hands a batch to the conventional pipeline one image after another."""

    def normalize(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([normalization(image) for image in np.asarray(layout(images.numpy()))])

    return normalize
