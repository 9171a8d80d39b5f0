"""What is counted between two looks."""

from __future__ import annotations

import json
import math
from itertools import product

import pytest
import torch
from torch import Tensor

from daso.methods.method import PseudoLabels
from daso.train.step.record import LossRecord, PseudoLabelRecord

SOUND = torch.tensor(0.5)


def losses(labeled: float, total: float) -> dict[str, Tensor]:
    return {"labeled": torch.tensor(labeled, requires_grad=True), "total": torch.tensor(total)}


def test_losses_are_means_since_the_last_look() -> None:
    record = LossRecord({})
    assert record.check() is None
    record.add(1, losses(1.0, 3.0), SOUND)
    record.add(2, losses(2.0, 5.0), SOUND)
    assert len(record) == 2
    assert record.check() is None
    assert len(record) == 0
    record.add(3, losses(6.0, 7.0), SOUND)
    assert record.check() is None
    assert record.take() == {"labeled": 3.0, "total": 5.0}
    record.add(4, losses(7.0, 8.0), SOUND)
    assert record.check() is None
    assert record.take() == {"labeled": 7.0, "total": 8.0}


def test_losses_that_are_not_in_every_step_count_as_0_in_the_others() -> None:
    record = LossRecord({})
    record.add(1, {"a": torch.tensor(4.0)}, SOUND)
    record.add(2, {"b": torch.tensor(1.0), "a": torch.tensor(2.0)}, SOUND)
    assert record.check() is None
    assert record.take() == {"b": 0.5, "a": 3.0}


def test_the_first_number_that_is_not_finite() -> None:
    for value, term in product((math.nan, math.inf, -math.inf), ("labeled", "total", "weights")):
        record = LossRecord({})
        for step in range(5, 12):
            broken = {term: torch.tensor(value)} if step >= 8 else {}
            weights = broken.pop("weights", torch.tensor(0.0))
            record.add(step, losses(1.0, 2.0) | broken, weights)
        fault = record.check()
        assert fault is not None
        assert (fault.step, fault.term) == (8, term)
        assert str(fault.value) == str(value)


def test_records_go_on_with_the_sums_of_others_in_the_same_order() -> None:
    truth = torch.tensor([0, 1, -1])
    labels = {"linear": torch.tensor([0, 1, 0]), "final": torch.tensor([1, 1, 0])}
    step = PseudoLabels(labels, torch.ones(3), torch.tensor([1.0, 0.0, 1.0]))
    found = []
    for moved in (False, True):
        sums: dict[str, Tensor] = {}
        record, counts = LossRecord(sums), PseudoLabelRecord(2, truth, sums)
        for number in range(1, 5):
            record.add(number, losses(0.1 * number, 0.3 * number), SOUND)
            counts.add(step, torch.tensor([0, 1, 2]))
            if moved and number < 4:
                assert record.check() is None
                # As a file keeps them: by name, copied.
                sums = {name: sums[name].clone() for name in sorted(sums, reverse=True)}
                record, counts = LossRecord(sums), PseudoLabelRecord(2, truth, sums)
        assert record.check() is None
        found.append(json.dumps([record.take(), counts.take()]))
        assert sums == {}
    assert found[0] == found[1]


def test_pseudo_labels_are_counted_by_true_class() -> None:
    truth = torch.tensor([0, 0, 1, -1])
    record = PseudoLabelRecord(2, truth, {})
    assert record.take() == {}
    final, linear = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 0, 0])
    for _ in range(2):
        labels = {"linear": linear, "final": final}
        record.add(
            PseudoLabels(labels, torch.ones(4), torch.tensor([1.0, 0.0, 1.0, 0.0])),
            torch.tensor([0, 1, 2, 3]),
        )
    numbers = record.take()
    assert numbers["share_confident"] == 0.5
    assert numbers["linear"]["distribution"] == [1.0, 0.0]
    assert numbers["linear"]["truth"] == pytest.approx([2 / 3, 1 / 3])
    assert numbers["final"]["distribution"] == [0.25, 0.75]
    assert numbers["final"]["recall"] == [0.5, 1.0]
    assert numbers["final"]["precision"] == [1.0, 0.5]
    assert numbers["final"]["accuracy"] == pytest.approx(2 / 3)
    assert numbers["confident"]["distribution"] == [0.5, 0.5]
    assert numbers["confident"]["accuracy"] == 1.0
    assert record.take() == {}


def test_indices_choose_the_truth() -> None:
    record = PseudoLabelRecord(3, torch.tensor([2, 1, 0]), {})
    labels = {"final": torch.tensor([2, 2])}
    record.add(PseudoLabels(labels, torch.ones(2), torch.zeros(2)), torch.tensor([0, 0]))
    numbers = record.take()
    assert numbers["final"]["truth"] == [0.0, 0.0, 1.0]
    assert numbers["final"]["accuracy"] == 1.0
    assert numbers["confident"]["distribution"] == [0.0, 0.0, 0.0]
    assert "accuracy" not in numbers["confident"]


def test_unknown_truth_leaves_the_distribution() -> None:
    record = PseudoLabelRecord(2, torch.tensor([-1, -1]), {})
    labels = {"final": torch.tensor([1, 1])}
    record.add(PseudoLabels(labels, torch.ones(2), torch.ones(2)), torch.tensor([0, 1]))
    assert record.take()["final"] == {"distribution": [0.0, 1.0]}
