"""DASO on FixMatch agrees with the authors' code over whole sequences of steps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_learners import FeaturesAsImages
from torch import Tensor

from daso.losses.labeled import LabeledLoss
from daso.losses.logit_adjusted import LogitAdjusted
from daso.methods.fixmatch import FixMatch
from daso.methods.method import Batch
from daso.refine.daso import DASO

REFERENCE = Path(__file__).parent.parent / "reference"
SEQUENCES = ("daso_k5", "daso_k10_tdist03", "daso_fixed_blend", "daso_logit_adjustment")


def labeled_loss(config: dict[str, Any], prior: Tensor) -> LabeledLoss:
    """Return the reference's loss on labeled images."""
    if not config["logit_adjustment"]:
        return LabeledLoss()
    counts = (prior.double() * 1e9).round().long()
    return LogitAdjusted(counts, adjustment_strength=config["tau"])


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_step_agrees_with_the_authors(name: str) -> None:
    stored = dict(np.load(REFERENCE / f"{name}.npz"))
    config = json.loads(str(stored.pop("config")))
    # In float64 what differs is their rounding alone, whatever the processor.
    vectors = {key: torch.from_numpy(value) for key, value in stored.items()}
    vectors = {k: v.double() if v.is_floating_point() else v for k, v in vectors.items()}
    steps, classes = len(vectors["labels"]), config["num_classes"]
    daso = DASO(
        classes,
        config["feature_dim"],
        torch.ones(classes, dtype=torch.int64),
        steps,
        queue_length=config["queue_length"],
        prototype_temperature=config["T_proto"],
        dist_temperature=config["T_dist"],
        align_weight=config["lambda_align"],
        warmup_steps=config["pretrain_steps"],
        histogram_period=config["pl_dist_update_period"],
        blend="distribution" if config["distribution_aware"] else "fixed",
        fixed_blend=config["fixed_blend"],
    )
    method = FixMatch(
        refine=daso,
        threshold=config["threshold"],
        supervised=labeled_loss(config, vectors["label_prior"]),
    ).double()
    network = FeaturesAsImages(vectors["class_weight"], vectors["class_bias"])
    semantic_steps = 0
    for step in range(steps):
        at = {key: value[step] for key, value in vectors.items() if len(value) == steps}
        in_force = daso.distribution.clone()
        result = method(
            network,
            network,
            Batch(
                (at["labeled_features"],),
                at["labels"],
                (at["weak_features"], at["strong_features"]),
                torch.arange(len(at["unlabeled_labels"])),
                torch.tensor(step),
            ),
        )
        network.zero_grad()
        torch.stack(list(result.losses.values())).sum().backward()
        labels = result.pseudo_labels.labels
        assert torch.equal(labels["linear"], at["linear_label"])
        assert torch.equal(labels["final"], at["pseudo_label"])
        assert torch.equal(
            result.pseudo_labels.mask, (at["confidence"] >= config["threshold"]).float()
        )
        if (at["semantic_label"] >= 0).all():
            semantic_steps += 1
            assert torch.equal(labels["semantic"], at["semantic_label"])
        for actual, expected in (
            (result.pseudo_labels.confidence, "confidence"),
            (daso.queue.prototypes, "prototypes"),
            (in_force, "pl_dist"),
            (result.losses["labeled"], "loss_cls"),
            (result.losses["unlabeled"], "loss_cons"),
            (result.losses["align"], "loss_align"),
            (network.weights["class"].grad, "grad_weight"),
        ):
            torch.testing.assert_close(actual, at[expected], rtol=1e-5, atol=1e-6)
    assert semantic_steps == steps - config["pretrain_steps"]
