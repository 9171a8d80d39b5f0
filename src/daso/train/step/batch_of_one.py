"""Refuse a batch of one where a batch norm would see a single value."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from daso.errors import OptionError
from daso.methods.method import Batch
from daso.train.step.state import Training


def refuse_batch_of_one(training: Training, batch: Batch) -> None:
    """Pass one batch through copies of the network and the method before the first step.

    Raises:
        OptionError: a batch norm in training mode has one value of each channel to normalize.
    """

    def check(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        x: Tensor = inputs[0]
        if norm.training and x.numel() == x.shape[1]:
            what = f"batch = {training.options.batch} is too small (--batch, batch_size)"
            raise OptionError(
                f"{what}: the network's batch norms need at least two values of each channel; "
                "train on 2 images a step or more"
            )

    parts = (training.network, training.average.network, training.method)
    network, teacher, method = copy.deepcopy(parts)
    for module in [*network.modules(), *teacher.modules()]:
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(check)
    network.train()
    teacher.train(method.teacher_uses_batch_statistics)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        method.begin_step(0)
        method(network, teacher, batch)
