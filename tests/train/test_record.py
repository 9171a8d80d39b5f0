"""What is counted between two looks."""

from __future__ import annotations

import pytest
import torch

from daso.methods.method import PseudoLabels
from daso.train.record import LossRecord, PseudoLabelRecord


def test_losses_are_means_since_the_last_look() -> None:
    record = LossRecord()
    record.add({"labeled": torch.tensor(1.0, requires_grad=True), "total": torch.tensor(3.0)})
    record.add({"labeled": torch.tensor(2.0), "total": torch.tensor(5.0)})
    assert record.take() == {"labeled": 1.5, "total": 4.0}
    record.add({"labeled": torch.tensor(7.0), "total": torch.tensor(8.0)})
    assert record.take() == {"labeled": 7.0, "total": 8.0}


def test_pseudo_labels_are_counted_by_true_class() -> None:
    truth = torch.tensor([0, 0, 1, -1])
    record = PseudoLabelRecord(2, truth)
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
    record = PseudoLabelRecord(3, torch.tensor([2, 1, 0]))
    labels = {"final": torch.tensor([2, 2])}
    record.add(PseudoLabels(labels, torch.ones(2), torch.zeros(2)), torch.tensor([0, 0]))
    numbers = record.take()
    assert numbers["final"]["truth"] == [0.0, 0.0, 1.0]
    assert numbers["final"]["accuracy"] == 1.0
    assert numbers["confident"]["distribution"] == [0.0, 0.0, 0.0]
    assert "accuracy" not in numbers["confident"]


def test_unknown_truth_leaves_the_distribution() -> None:
    record = PseudoLabelRecord(2, torch.tensor([-1, -1]))
    labels = {"final": torch.tensor([1, 1])}
    record.add(PseudoLabels(labels, torch.ones(2), torch.ones(2)), torch.tensor([0, 1]))
    assert record.take()["final"] == {"distribution": [0.0, 1.0]}
