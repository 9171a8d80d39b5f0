"""Exported files of runs with a readout answer as the run does, on images of every kind and on vectors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import daso
from daso.data.images.decoded import DecodedImages
from daso.data.source import Source
from daso.export.run import export_run
from daso.nets.encoders import patches
from daso.readout.choice import choose
from daso.train import readout
from daso.train.prepare import prepare
from daso.train.run import train_run
from tests.conftest import MakeConfig


def silent(_: str) -> None:
    pass


def large(pool: DecodedImages) -> DecodedImages:
    """Return the digits in three colors, 80 x 72 pixels: larger than patches are taken from."""
    sized = np.repeat(np.repeat(pool.images, 10, 2), 9, 3)
    return DecodedImages(np.concatenate([sized, sized // 2, 255 - sized], 1), pool.labels)


@pytest.mark.parametrize("kind", ["gray", "color, large, mirrored", "vectors"])
def test_all_formats_answer_as_the_run(
    kind: str,
    tiny_config: MakeConfig,
    digits: Source,
    vectors: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = digits
    if kind == "vectors":
        source = dataclasses.replace(vectors, flip=False)
    elif kind != "gray":
        assert digits.test is not None
        test = DecodedImages(digits.test.images[:80], digits.test.labels[:80])
        pools = {"train": large(digits.train), "test": large(test)}
        source = dataclasses.replace(digits, mean=None, std=None, flip=True, **pools)
    # The last features to choose from are the mirrored ones, if the data may be mirrored.
    monkeypatch.setattr(readout, "choose", lambda forms, *rest: choose(forms[-1:], *rest))
    network = None if kind == "vectors" else "small-4"
    config = tiny_config("fixmatch+abc+mixture", network=network, steps=3)
    prepared = prepare(config, source)
    run = tmp_path / "run"
    list(train_run(prepared, run))
    fitted = prepared.training.average.network.readout
    assert fitted is not None
    assert bool(fitted.mirrorings) == (kind == "color, large, mirrored")
    assert source.test is not None
    images = source.test.images[:20, 0] if kind == "vectors" else source.test.images[:20]
    for format_ in ("torch", "onnx", "safetensors"):
        # As in a new process: what is computed once must not be computed while tracing.
        patches.resizing_matrix.cache_clear()
        patches._pooling.cache_clear()
        exported = export_run(run, format_, images=images, warn=silent)
        assert exported.check.difference < 1e-4
        expected = daso.load(run, "cpu", warn=silent).predict(images).probabilities
        if format_ != "torch":  # which daso does not load
            again = daso.load(exported.path, "cpu").predict(images).probabilities
            np.testing.assert_allclose(again, expected, atol=1e-4)
    with safe_open(run / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert not [name for name in names if name.startswith("heads.")]
    assert [name for name in names if name.startswith("readout.blocks.network.")]
