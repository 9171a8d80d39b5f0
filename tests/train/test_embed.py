"""Embeddings of a frozen backbone: what they are, and the runs on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from frozen import Patches, embedded
from PIL import Image
from run_files import assert_same_run, train
from torch import Tensor, nn

from daso.data.source import Source
from daso.errors import DataError, OptionError, RunError
from daso.evaluate.metrics import evaluate_logits
from daso.evaluate.predict import predict_logits
from daso.nets import engines
from daso.nets.backbone import Preprocessing
from daso.nets.readout import MIRRORINGS
from daso.train.encoder import embeddings as embed
from daso.train.model import load_model
from daso.train.prepare import prepare
from daso.train.run import resume_run, train_run
from tests.conftest import SPLIT, MakeConfig

CPU = torch.device("cpu")


def test_the_plain_version_is_the_embedding_of_the_image(
    make_frozen: MakeConfig, digits: Source
) -> None:
    data = embedded(make_frozen(weak_versions=2, strong_versions=3), digits)
    assert data.test is not None
    assert data.unlabeled is not None
    assert digits.test is not None
    assert (data.labeled.images.shape[1], data.test.images.shape[1], data.weak_versions) == (
        6,
        1,
        2,
    )
    images = torch.from_numpy(digits.test.images)
    plain = prepare(make_frozen(freeze=False), digits, encoder=Patches()).data
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (plain.mean, plain.std))
    with torch.no_grad():
        expected = Patches()((images / 255 - mean) / std)
    torch.testing.assert_close(data.test.images[:, 0], expected, rtol=2e-3, atol=1e-2)

    versions = data.unlabeled.images
    away = (versions - versions[:, :1]).norm(dim=2).mean(0)
    assert away[0] == 0
    assert 0 < away[1:3].mean() < away[3:].mean(), "strong views are further away than weak ones"
    assert not torch.equal(versions[:, 1], versions[:, 2])
    dimensions = torch.cat([data.labeled.images[:, 0], versions[:, 0]]).double()
    assert data.mean == pytest.approx(dimensions.mean(0).tolist())


def test_only_views_that_the_method_draws_from_are_embedded(
    make_frozen: MakeConfig, digits: Source
) -> None:
    versions = {"weak_versions": 1, "strong_versions": 2}
    shapes = {}
    for method in ("fixmatch", "supervised", "supervised+crest", "pseudolabel"):
        config = make_frozen(method, steps=10, **versions)
        data = prepare(config, digits, encoder=Patches()).data
        assert data.unlabeled is not None
        shapes[method] = [len(pool.images[0]) for pool in (data.labeled, data.unlabeled)]
        if method == "fixmatch":
            weak = data.labeled.images[:, :2]
        assert torch.equal(data.labeled.images[:, :2], weak), "they are the same in any run"
    assert shapes == {
        "fixmatch": [4, 4],
        "supervised": [2, 1],
        "supervised+crest": [2, 2],
        "pseudolabel": [2, 2],
    }


def test_a_readout_sees_embeddings_of_the_mirrored_images(
    make_frozen: MakeConfig, digits: Source
) -> None:
    config = make_frozen("supervised+mixture", steps=0, weak_versions=1, strong_versions=1)
    config = dataclasses.replace(config, method_options={"mirror": "both"})
    data = embedded(config, digits)
    assert data.test is not None
    assert digits.test is not None
    assert (data.labeled.images.shape[1], data.test.images.shape[1]) == (5, 4)
    assert (data.mirrorings, data.weak_versions) == (3, 4)
    for version, dims in enumerate(MIRRORINGS, start=1):
        images = np.flip(digits.test.images, dims).copy()
        test = dataclasses.replace(digits.test, images=images)
        plain = embedded(make_frozen(), dataclasses.replace(digits, test=test))
        assert plain.test is not None
        size = len(data.mean)  # the components of patches follow
        assert torch.equal(data.test.images[:, version, :size], plain.test.images[:, 0])
    again = dataclasses.replace(config, method_options={"mirror": "none"})
    assert embedded(again, digits).computed == 0, "the plain versions are stored by themselves"


class Colors(nn.Module):
    """An encoder of one's own of color images, that says what they must look like."""

    preprocessing = Preprocessing((0.5, 0.4, 0.3), (0.25, 0.5, 1.0), 12, "bicubic")

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight, stride=4).flatten(1)


class LikeTimm(Colors):
    preprocessing = None  # type: ignore[assignment]
    pretrained_cfg = MappingProxyType(
        {
            "mean": (0.5, 0.4, 0.3),
            "std": (0.25, 0.5, 1.0),
            "input_size": (3, 12, 12),
            "interpolation": "bicubic",
        }
    )


@pytest.mark.parametrize("kind", [Colors, LikeTimm])
def test_an_encoder_of_ones_own_sees_the_images_that_it_asks_for(
    kind: type[Colors], make_frozen: MakeConfig, digits: Source
) -> None:
    data = embedded(make_frozen(weak_versions=0, strong_versions=0), digits, kind())
    assert data.test is not None
    assert digits.test is not None
    seen = []
    for image in digits.test.images[:5, 0]:
        big = Image.fromarray(image.astype(np.float32)).resize((12, 12), Image.Resampling.BICUBIC)
        seen.append(np.stack([np.clip(np.asarray(big), 0, 255) / 255] * 3))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.25, 0.5, 1.0)))
    with torch.no_grad():
        expected = kind()((torch.from_numpy(np.stack(seen)).float() - mean) / std)
    torch.testing.assert_close(data.test.images[:5, 0], expected, rtol=2e-3, atol=2e-2)


def test_other_engines_compute_the_same_embeddings(
    make_frozen: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten())
    for precision, engine, limit in (
        ("float32", "ONNX Runtime", 1e-3),  # a step of float16
        ("bfloat16", "oneDNN Graph", 0.1),
    ):
        expected = embedded(make_frozen(precision=precision), digits, encoder)
        config = make_frozen(precision=precision, embedding_folder=str(tmp_path / precision))
        with monkeypatch.context() as patch:
            patch.setattr(engines, "WORTHWHILE", 1)
            patch.setattr(engines, "ENOUGH", 0.0)
            found = embedded(config, digits, encoder)
            assert (expected.engine, found.engine) == ("torch", engine)
            assert found.computed == expected.computed
            difference = (found.labeled.images - expected.labeled.images).abs().max()
            assert difference < limit * expected.labeled.images.abs().max()
            if precision == "bfloat16":  # measured images are embedded as they are predicted
                for name in ("holdout", "test"):
                    assert torch.equal(getattr(found, name).images, getattr(expected, name).images)
            patch.setattr(embed, "accelerate", pytest.fail)
            again = embedded(config, digits, encoder)
        assert again.computed == 0
        assert precision == "float32" or again.engine == engine
        assert torch.equal(again.labeled.images, found.labeled.images)


def test_progress_counts_views_and_tells_first_what_is_there(
    make_frozen: MakeConfig, digits: Source
) -> None:
    calls: list[tuple[int, int]] = []

    def follow(source: Source, encoder: Patches) -> tuple[int, int]:
        calls.clear()
        seen = encoder.calls
        prepare(make_frozen(), source, encoder=encoder, progress=lambda *state: calls.append(state))
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)
        assert calls[-1][0] == calls[-1][1]
        assert encoder.calls == seen  # it is copied
        return calls[0]

    source = dataclasses.replace(digits, mean=(0.3,), std=(0.4,))
    done, total = follow(source, Patches())
    assert done == 0
    steps = np.diff([done for done, _ in calls])
    assert steps.max() <= max(1, embed.PIXELS_CPU // 64)  # one pass of the encoder
    assert follow(source, Patches()) == (total, total)


def test_a_wrong_hyperparameter_is_refused_before_anything_is_embedded(
    make_frozen: MakeConfig, digits: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daso.train.prepare.embed_data", pytest.fail)
    config = dataclasses.replace(make_frozen(), method_options={"threshold": 7.0})
    with pytest.raises(OptionError, match="threshold"):
        prepare(config, digits, encoder=Patches())


def test_a_backbone_that_returns_nan_is_refused(make_frozen: MakeConfig, digits: Source) -> None:
    broken = Patches()
    broken.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="NaN or infinity"):
        embedded(make_frozen(), digits, broken)


def test_the_model_of_a_frozen_run_takes_images(
    make_frozen: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = make_frozen(steps=120, evaluate_every=120, ema_decay=0.95, batch=16)
    # A shift by a pixel is much in 8, for an encoder that knows places.
    config = dataclasses.replace(
        config, augmentation=dataclasses.replace(config.augmentation, crop_padding=0)
    )
    rows = list(train_run(prepare(config, digits, encoder=Patches()), run))
    for path in Path(make_frozen().train.embedding_folder or "").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(OptionError, match=r"came from Python \(Patches\)"):
        load_model(run, CPU, pytest.fail)
    model = load_model(run, CPU, pytest.fail, Patches(seed=5))
    assert model.image_shape == (1, 8, 8)
    assert digits.test is not None
    logits = predict_logits(model.network, torch.from_numpy(digits.test.images)).numpy()
    found = evaluate_logits(logits, digits.test.labels, np.array(model.labeled_counts))
    assert found["balanced_accuracy"] == pytest.approx(
        rows[-1]["test"]["balanced_accuracy"], abs=0.02
    )
    assert found["balanced_accuracy"] > 0.5


def test_a_stopped_frozen_run_goes_on_bit_for_bit(
    make_frozen: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daso.train.prepare.open_configured", lambda *_, **__: digits)
    for optimizer in ("sgd", "adamw"):
        config = make_frozen(optimizer=optimizer)
        whole, stopped = (tmp_path / f"{optimizer}-{name}" for name in ("whole", "stopped"))
        train(prepare(config, digits, encoder=Patches()), whole)
        train(prepare(config, digits, encoder=Patches()), stopped, 10)
        with pytest.raises(OptionError, match="came from Python"):
            resume_run(stopped)
        list(resume_run(stopped, encoder=Patches(seed=3))[1])
        assert_same_run(whole, stopped)


def test_a_resumed_run_says_that_its_embeddings_are_not_those_it_began_with(
    make_frozen: MakeConfig, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(prepare(make_frozen(), digits, encoder=Patches()), tmp_path / "run", 10)
    monkeypatch.setattr("daso.train.prepare.open_configured", lambda *_, **__: digits)
    warnings: list[str] = []
    rows = resume_run(tmp_path / "run", warnings.append, encoder=Patches())[1]
    assert next(rows)["event"]
    rows.close()  # type: ignore[attr-defined]
    assert not warnings
    for path in Path(make_frozen().train.embedding_folder or "").rglob("*.safetensors"):
        path.unlink()
    exact = Patches.forward
    # As another processor, or ONNX Runtime, would round.
    monkeypatch.setattr(Patches, "forward", lambda self, x: exact(self, x) * 1.001)
    list(resume_run(tmp_path / "run", warnings.append, encoder=Patches())[1])
    assert len(warnings) == 1
    assert "embeddings" in warnings[0]


def test_a_damaged_backbone_of_a_run_is_noticed(
    make_frozen: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    list(train_run(prepare(make_frozen(steps=5), digits, encoder=Patches()), run))
    path = run / "backbone" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="is damaged, or of another run"):
        load_model(run, CPU, pytest.fail, Patches())


def test_what_does_not_go_together_is_refused(make_frozen: MakeConfig, digits: Source) -> None:
    with pytest.raises(OptionError, match="--freeze needs a pretrained network"):
        prepare(make_frozen(network="small-4"), digits)
    with pytest.raises(OptionError, match="unknown network 'wrn-28-2' for vectors"):
        prepare(make_frozen(embedding_network="wrn-28-2"), digits, encoder=Patches())
    with pytest.raises(
        OptionError, match=r"must return features of shape \(2, D\), returned \(2, 1, 8, 8\)"
    ):
        prepare(make_frozen(), digits, encoder=nn.Identity())
    vectors = embedded(make_frozen(), digits)
    flat = dataclasses.replace(
        digits,
        train=dataclasses.replace(
            digits.train,
            images=digits.train.images.reshape(len(digits.train), 1, 64).astype(np.float32),
        ),
        test=None,
        mean=None,
        std=None,
    )
    assert vectors.are_vectors
    with pytest.raises(OptionError, match="the data are vectors already"):
        prepare(dataclasses.replace(make_frozen(), split=SPLIT), flat, encoder=Patches())


def test_generations_grow_from_embeddings_too(
    make_frozen: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    config = dataclasses.replace(make_frozen("fixmatch+crest"), method_options={"generations": 2})
    rows = list(train_run(prepare(config, digits, encoder=Patches()), tmp_path / "run"))
    assert {row["stage"] for row in rows} == {0, 1}


def test_a_probe_learns_at_a_rate_of_its_own(make_frozen: MakeConfig, digits: Source) -> None:
    for options, rate in (
        ({}, 0.1),
        ({"embedding_network": "mlp-32"}, 0.03),
        ({"learning_rate": 0.02}, 0.02),
        ({"optimizer": "adamw"}, 0.001),
        ({"freeze": False}, 0.03),
    ):
        config = prepare(make_frozen(**options), digits, encoder=Patches()).config
        assert config.train.learning_rate == rate
