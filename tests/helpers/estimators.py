"""Estimators that are quickly fitted."""

from __future__ import annotations

from typing import Any

from daso import DASOClassifier


def small(**options: Any) -> DASOClassifier:
    defaults = {
        "method": "fixmatch+daso",
        "steps": 30,
        "random_state": 0,
        "device": "cpu",
        "network": "mlp-32",
        "n_networks": 1,
    }
    return DASOClassifier(**{**defaults, **options})
