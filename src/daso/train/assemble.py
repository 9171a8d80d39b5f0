"""Put a method, an encoder and data together, ready to train."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from daso.data.training_data import TrainingData
from daso.errors import OptionError, named
from daso.methods.method import Batch, Method
from daso.nets.backbone import Backbone, Preprocessing
from daso.nets.distributed import Processes, share_batch_norms
from daso.nets.encoders import Encoder
from daso.nets.recompute import recompute_activations
from daso.train.encoder.build import build_network, fall_back_to_float32
from daso.train.options import TrainOptions, backbone_rate
from daso.train.step.batches import Batches
from daso.train.step.state import Training
from daso.train.view_options import VectorViewOptions, ViewOptions


def assemble(
    method: Method,
    encoder: Encoder,
    data: TrainingData,
    options: TrainOptions,
    augmentation: ViewOptions | None = None,
    vectors: VectorViewOptions | None = None,
    *,
    backbone: Backbone | None = None,
    frozen: dict[str, Tensor] | None = None,
    processes: Processes | None = None,
) -> tuple[Training, Batches]:
    """Put a method, an encoder and data together, ready for ``fit``.

    Args:
        encoder: maps normalized images, float (B, C, H, W), or vectors, float (B, D), to features.
        backbone: pretrained encoder that *encoder* starts from; its preprocessing is used.
        frozen: weights for the encoder, which stay as they are.

    Raises:
        OptionError: the options, the method and the data do not fit.
    """
    if options.recompute:
        if processes is not None:
            raise OptionError(f"{named('recompute')} needs one process; leave it out")
        recompute_activations(encoder)
    device = data.labeled.images.device
    heads = {"class": len(data.class_names), **method.heads}
    preprocessing = Preprocessing(data.mean, data.std, options.resolution)
    if backbone is not None:
        preprocessing = backbone.preprocessing
    network = build_network(options, data.shape, encoder, heads, method.output, preprocessing)
    rate = backbone_rate(options, method.learning_rate, backbone is not None)
    options = replace(options, backbone_rate=rate)
    if frozen is not None:
        network.encoder.load_state_dict(frozen)
        network.freeze_encoder()
    for name in method.computed_heads:
        network.heads[name].requires_grad_(False)
    network = network.to(device)
    fall_back_to_float32(network, data.shape)
    if processes is not None:
        share_batch_norms(network.encoder, compiled=options.compile)
        network.share(processes)
    batches = Batches(data, method, options, augmentation, vectors)
    if options.compile:
        torch.compiler.reset()  # graphs of earlier stages count towards the limit of recompilations
    training = Training(network, method.to(device), options)
    if options.batch == 1 and processes is None:
        _refuse_batch_of_one(training, batches(0))
    return training, batches


def _refuse_batch_of_one(training: Training, batch: Batch) -> None:
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
