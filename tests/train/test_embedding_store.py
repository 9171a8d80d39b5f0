"""Embeddings on disk: computed once, kept when a training is killed, and mended when they are damaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from frozen import Patches, embedded
from torch import Tensor

from daso.data.source import Source
from daso.errors import RunError
from daso.train.encoder import embeddings as embed
from daso.train.encoder.embeddings import EmbeddingStore
from tests.conftest import MakeConfig


def test_embeddings_are_computed_once(make_frozen: MakeConfig, digits: Source) -> None:
    first = embedded(make_frozen(), digits)
    again = embedded(make_frozen("fixmatch+daso"), digits)
    assert first.computed > 0
    assert again.computed == 0
    for name in ("labeled", "unlabeled", "holdout", "test"):
        before, after = getattr(first, name), getattr(again, name)
        assert torch.equal(before.images, after.images), "what is read is what was computed"
    # The encoder is normalized by the split's images: a published mean lets all seeds share what is there.
    source = dataclasses.replace(digits, mean=(0.3,), std=(0.4,))
    counts = [embedded(make_frozen(seed=seed), source).computed for seed in (1, 1, 2)]
    assert counts[1] == 0
    assert 0 < counts[2] < counts[0], "of another split only what was not seen is computed"


@pytest.mark.parametrize("change", ["weights", "versions", "views", "precision"])
def test_embeddings_of_another_kind_are_computed_anew(
    change: str, make_frozen: MakeConfig, digits: Source
) -> None:
    config, encoder = make_frozen(), Patches()
    first = embedded(config, digits, encoder)
    if change == "weights":
        encoder = Patches(1)
    if change == "versions":
        config = make_frozen(strong_versions=5)
    if change == "views":
        config = dataclasses.replace(
            config, augmentation=dataclasses.replace(config.augmentation, cutout=0)
        )
    if change == "precision":
        config = make_frozen(precision="bfloat16")
    other = embedded(config, digits, encoder)
    assert other.computed > 0
    assert other.folder != first.folder
    assert not torch.equal(other.labeled.images[:, -1], first.labeled.images[:, -1])


def test_a_killed_embedding_goes_on_and_damage_is_mended(
    make_frozen: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "SHARD", 64)
    whole = embedded(
        make_frozen(
            embedding_folder=str(Path(make_frozen().train.embedding_folder or "") / "other")
        ),
        digits,
    )

    class KilledError(Exception):
        pass

    class Dying(Patches):
        def forward(self, x: Tensor) -> Tensor:
            if self.calls > 700:
                raise KilledError
            return super().forward(x)

    with pytest.raises(KilledError):
        embedded(make_frozen(), digits, Dying())
    folder = Path(make_frozen().train.embedding_folder or "")
    shards = sorted(folder.rglob("*.safetensors"))
    assert shards, "what was finished is there"
    damaged = bytearray(shards[0].read_bytes())
    damaged[len(damaged) // 2] ^= 255
    shards[0].write_bytes(damaged)
    rest = embedded(make_frozen(), digits)
    assert 0 < rest.computed < whole.computed
    assert rest.unlabeled is not None
    assert whole.unlabeled is not None
    torch.testing.assert_close(rest.unlabeled.images, whole.unlabeled.images, rtol=2e-3, atol=1e-3)
    assert embedded(make_frozen(), digits).computed == 0, "the damaged shard has been replaced"


def test_an_interrupted_embedding_says_what_is_kept_and_the_same_command_goes_on(
    make_frozen: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "SHARD", 64)

    class Interrupted(Patches):
        def forward(self, x: Tensor) -> Tensor:
            if self.calls > 700:
                raise KeyboardInterrupt
            return super().forward(x)

    folder = make_frozen().train.embedding_folder
    with pytest.raises(KeyboardInterrupt, match=f"kept in {folder}; the same command goes on"):
        embedded(make_frozen(), digits, Interrupted())
    shards = Path(folder or "").rglob("*.safetensors")
    kept = sum(len(safetensors.numpy.load_file(shard)["digests"]) for shard in shards)
    whole = embedded(make_frozen(embedding_folder=f"{folder}-whole"), digits).computed
    assert 0 < kept < whole
    assert embedded(make_frozen(), digits).computed == whole - kept


def test_an_image_that_is_there_twice_is_computed_once(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "store", {"a": 1})
    asked: list[int] = []

    def compute(rows: Any) -> Tensor:
        asked.extend(rows)
        return torch.tensor([[[float(row)]] for row in rows])

    digests = [bytes([n]) * embed.DIGEST for n in (7, 8, 7, 9)]
    out = np.zeros((4, 1, 1), np.float32)
    assert store.collect(digests, compute, out) == 3
    assert asked == [0, 1, 3]
    assert out[:, 0, 0].tolist() == [0, 1, 0, 3]


def test_a_shard_that_cannot_be_read_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, out = b"x" * embed.DIGEST, np.zeros((1, 1, 2), np.float32)
    EmbeddingStore(tmp_path, {}).collect([key], lambda _: torch.ones(1, 1, 2), out)
    (shard,) = tmp_path.glob("*.safetensors")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(RunError, match="Permission denied"):
        EmbeddingStore(tmp_path, {}).collect([key], pytest.fail, out)
    assert shard.exists()


def test_each_shard_is_verified_once(
    make_frozen: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(make_frozen().train.embedding_folder or "")
    embedded(make_frozen(), digits)
    verified: list[int] = []
    checksum = embed._checksum

    def counted(content: bytes) -> str:
        verified.append(len(content))
        return checksum(content)

    monkeypatch.setattr(embed, "_checksum", counted)
    assert embedded(make_frozen(), digits).computed == 0
    assert len(verified) == len(list(folder.rglob("*.safetensors"))) > 2


def test_numbers_too_large_for_half_precision_are_kept(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "store", {})
    out = np.zeros((1, 1, 2), np.float32)
    store.collect([b"x" * embed.DIGEST], lambda _: torch.tensor([[[1e6, 1.0]]]), out)
    (shard,) = (tmp_path / "store").glob("*.safetensors")
    assert safetensors.numpy.load_file(shard)["embeddings"].dtype == np.float32
    assert out.ravel().tolist() == [1e6, 1.0]
