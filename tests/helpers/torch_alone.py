"""An exported model that answers where daso is not installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch


def answer(model: Path, folder: Path) -> None:
    """Answer the images of a folder; importing daso, or what of it is imported, fails."""
    sys.modules |= {name: None for name in sys.modules if name.partition(".")[0] == "daso"}  # type: ignore[misc]
    files = {"facts.json": ""}
    network = torch.export.load(model, extra_files=files).module()
    images = torch.from_numpy(np.load(folder / "images.npy"))
    np.save(folder / "probs.npy", network(images).detach().numpy())
    assert json.loads(json.loads(files["facts.json"])["class_names"])[3] == "3"
