"""Cases of advice about the method, the network and the options of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from advice import FIXMATCH, TRAIN, Case, trained

from daso.errors import RunError
from daso.nets import convert
from daso.nets.network import Network, build_encoder
from daso.nets.pretrained.timm_import import import_timm
from daso.report.figures import draw


def no_plots(patch: pytest.MonkeyPatch) -> None:
    def fail_once(folder: Path) -> None:
        patch.setattr(draw, "draw_run", lambda folder: [Path("new/plots")])
        raise RunError("a full disk")

    patch.setattr(draw, "draw_run", fail_once)


def weights(patch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    tensors = build_encoder("small-4", 3, 8).state_dict()
    safetensors.torch.save_file(tensors, "weights.safetensors")
    return dict(tensors)


def pickled(patch: pytest.MonkeyPatch) -> None:
    torch.save(weights(patch), "weights.pt")
    Path("weights.safetensors").unlink()


def converted() -> str:
    convert.convert(Path("weights.pt"))
    return f"{TRAIN} --network small-4 --weights weights.safetensors"


def weights_of_timm(name: object) -> None:
    model = import_timm().create_model(name if isinstance(name, str) else "test_vit", num_classes=0)
    safetensors.torch.save_file(model.state_dict(), "timm.safetensors")


def overflowing(patch: pytest.MonkeyPatch) -> None:
    real = Network.forward

    def forward(network: Network, images: torch.Tensor) -> torch.Tensor:
        features = real(network, images)
        return features if network.precision == "float32" else torch.full_like(features, np.inf)

    patch.setattr(Network, "forward", forward)


DASO = FIXMATCH.replace("fixmatch", "fixmatch+daso")
REMIXMATCH = FIXMATCH.replace("fixmatch", "remixmatch")

CASES: dict[str, Case] = {
    "a device that nobody has": Case(
        f"{TRAIN} --device tpu", r"choose from (cpu)", f"{TRAIN} --device {{0}}"
    ),
    "a device that is not here": Case(
        f"{TRAIN} --device cuda", r"use (--device) cpu or (auto)", f"{TRAIN} {{0}} {{1}}"
    ),
    "a graph without its device": Case(f"{TRAIN} --cuda-graph", r"--cuda-graph\) .*; leave it out", TRAIN),
    "patience without a hold-out": Case(
        f"{TRAIN} --patience 3",
        r"--patience has no effect[^;]*; (--holdout \d+)",
        f"{TRAIN} --patience 3 {{0}}",
    ),
    "padding without a crop": Case(
        f"{FIXMATCH} --crop resized --crop-padding 2",
        r"it requires (--crop pad)",
        f"{FIXMATCH} --crop-padding 2 {{0}}",
    ),
    "returns to a checkpoint that never happen": Case(
        f"{TRAIN} --rollbacks 2",
        r"it requires (--on-divergence rollback)",
        f"{TRAIN} --rollbacks 2 {{0}}",
    ),
    "T_dist of a fixed blend": Case(
        f"{FIXMATCH.replace('fixmatch', 'fixmatch+daso')} --blend fixed --dist-temperature 2",
        r"it requires (--blend distribution)",
        f"{FIXMATCH.replace('fixmatch', 'fixmatch+daso')} --dist-temperature 2 {{0}}",
    ),
    "an option of another method": Case(
        f"{FIXMATCH} --dist-temperature 2",
        r"that have it: .*?(\S+) \('daso (methods) NAME' shows",
        "{1} {0}",
        then="dist-temperature",
    ),
    "an option that does not exist": Case(
        "train photos --xyz 3", r"unknown option \S+; '(?:daso )?(.+ --help)' lists", "{0}", then="--steps"
    ),
    "two ways to save memory": Case(
        f"{TRAIN} --recompute --compile",
        r"(--recompute)\) and compile .* exclude each other; leave one out",
        f"{TRAIN} {{0}}",
    ),
    "a batch norm of one value": Case(
        "train photos --method supervised --size 1 --out new --batch 1",
        r"--batch.*train on (2) images a step",
        "train photos --method supervised --size 1 --out new --batch {0}",
    ),
    "a place that holds other things": Case(
        "train photos --method supervised --size 8 --out photos",
        r"it is no run; use another (--out)",
        "train photos --method supervised --size 8 {0} new",
    ),
    "strong views of another size": Case(
        f"{FIXMATCH} --strong-side 8", r"add (--resolution)", f"{FIXMATCH} --strong-side 8 {{0}} 16"
    ),
    "an estimate that never changes": Case(
        FIXMATCH.replace("fixmatch", "acr"),
        r"lower (--estimate-period) \d+, for example to (\d+)",
        FIXMATCH.replace("fixmatch", "acr") + " {0} {1}",
    ),
    "a prior that never changes": Case(
        FIXMATCH.replace("fixmatch", "simpro"),
        r"lower (--prior-period) \d+, for example to (\d+)",
        FIXMATCH.replace("fixmatch", "simpro") + " {0} {1}",
    ),
    "retraining for too long": Case(
        f"{FIXMATCH.replace('fixmatch', 'fixmatch+crt')} --retraining-steps 5",
        r"(--retraining-steps)\): it must be at least (1)",
        FIXMATCH.replace("fixmatch", "fixmatch+crt") + " {0} {1}",
    ),
    "blocks that are none": Case(
        f"{TRAIN} --layer-decay 0.5",
        r"--layer-decay.*leave it at (1)",
        f"{TRAIN} --layer-decay {{0}}",
    ),
    "plots that could not be drawn": Case(
        TRAIN, r"no plots: .*'daso (plot [^']+)' draws them", "{0}", then="new/", prepare=no_plots
    ),
    "a loss of NaN": Case(
        f"{TRAIN} --steps 9 --learning-rate 1e30",
        r"a lower (--learning-rate)",
        f"{TRAIN} --steps 9 {{0}} 0.01",
    ),
    "a loss of NaN that is rolled back": Case(
        f"{TRAIN} --steps 2 --evaluate-every 2 --learning-rate 1e30 --rollbacks 150",
        r"'daso (resume \S+ --on-divergence rollback)' .* with half the learning rate",
        "{0} --quiet",
        then="2 steps in",
    ),
    "an option of another blend": Case(
        f"{DASO} --fixed-blend 0.4", r"it requires (--blend fixed)", f"{DASO} --fixed-blend 0.4 {{0}}"
    ),
    "the length of a queue": Case(
        f"{DASO} --queue-length 8 --no-balanced-queue",
        r"it requires (--balanced-queue)",
        f"{DASO} --queue-length 8 {{0}}",
    ),
    "rotations of embeddings": Case(
        f"{REMIXMATCH} --network run --freeze",
        r"rotates images, not vectors: use (--rotation-weight 0)",
        f"{REMIXMATCH} --network run --freeze {{0}}",
    ),
    "frozen, but nothing to freeze": Case(
        f"{TRAIN} --freeze",
        r"needs a pretrained network: (--network) hf:NAME, timm:NAME or a folder, or (--weights) FILE",
        f"{TRAIN} --freeze {{0}} run",
    ),
    "weights of no network": Case(
        f"{TRAIN} --network '' --weights weights.safetensors",
        r"--weights needs their network: (--network) resnet50, for example",
        f"{TRAIN} {{0}} small-4 --weights weights.safetensors",
        prepare=weights,
    ),
    "weights as a pickle": Case(
        f"{TRAIN} --network small-4 --weights weights.pt",
        r"If you trust it, convert it: python -m daso\.nets\.convert (\S+)",
        converted,
        prepare=pickled,
    ),
    "a run on embeddings as a network": Case(
        f"{TRAIN} --network frozen",
        r"was trained on embeddings; use its backbone: (--network \S+)",
        f"{TRAIN} {{0}}",
        prepare=lambda _: trained("photos", "--network", "run", "--freeze", "--out", "frozen"),
    ),
    "embeddings that nobody can write": Case(
        f"{TRAIN} --network run --freeze --embedding-folder photos/test/cat/00.png",
        r"cannot write into .*00\.png.*; choose another folder",
        f"{TRAIN} --network run --freeze --embedding-folder kept",
        then="run folder",
    ),
    "a training from scratch": Case(
        TRAIN,
        r"pretrained encoder usually does much better .*\((--network timm:)NAME (--freeze);",
        f"{TRAIN} {{0}}test_vit {{1}} --weights timm.safetensors --resolution 32",
        prepare=weights_of_timm,
    ),
    "a model of timm without weights": Case(
        f"{TRAIN} --network timm:lcnet_035 --freeze --resolution 32",
        r"the hub has no weights of timm's 'lcnet_035'; use (--weights) FILE",
        f"{TRAIN} --network timm:lcnet_035 --freeze --resolution 32 {{0}} timm.safetensors",
        prepare=lambda _: weights_of_timm("lcnet_035"),
    ),
    "a loss of NaN in low precision": Case(
        f"{TRAIN} --steps 9 --learning-rate 1e30 --precision bfloat16",
        r"try a lower (--learning-rate) or (--precision float32)",
        f"{TRAIN} --steps 9 {{0}} 0.01 {{1}}",
    ),
    "embeddings that low precision cannot hold": Case(
        f"{TRAIN} --network run --freeze --embedding-folder fresh --precision bfloat16",
        r"NaN or infinity for some images; use (--precision float32)",
        f"{TRAIN} --network run --freeze --embedding-folder fresh {{0}}",
        prepare=overflowing,
    ),
}  # fmt: skip
