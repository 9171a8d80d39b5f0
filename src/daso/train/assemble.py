"""Put a method, an encoder and data together, ready to train."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from daso.data.training_data import TrainingData
from daso.errors import OptionError
from daso.methods.method import Method
from daso.nets.backbone import Backbone
from daso.nets.distributed import Processes, share_batch_norms
from daso.nets.network import Encoder
from daso.nets.recompute import recompute_activations
from daso.train.encoder.bfloat16 import fall_back_to_float32
from daso.train.encoder.build import build_network
from daso.train.options import TrainOptions, backbone_rate
from daso.train.step.batch_of_one import refuse_batch_of_one
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
            raise OptionError("--recompute needs one process; leave it out")
        recompute_activations(cast(nn.Module, encoder))
    device = data.labeled.images.device
    heads = {"class": len(data.class_names), **method.heads}
    preprocessing = None if backbone is None else backbone.preprocessing
    network = build_network(
        options, data.shape, encoder, heads, data.mean, data.std, method.output, preprocessing
    )
    rate = backbone_rate(options, method.learning_rate, backbone is not None)
    options = replace(options, backbone_rate=rate)
    if frozen is not None:
        cast(nn.Module, network.encoder).load_state_dict(frozen)
        network.freeze_encoder()
    network = network.to(device)
    fall_back_to_float32(network, data.shape)
    if processes is not None:
        share_batch_norms(cast(nn.Module, network.encoder), compiled=options.compile)
        network.share(processes)
    batches = Batches(data, method, options, augmentation, vectors)
    if options.compile:
        torch.compiler.reset()  # graphs of earlier stages count towards the limit of recompilations
    training = Training(network, method.to(device), options)
    if options.batch == 1 and processes is None:
        refuse_batch_of_one(training, batches(0))
    return training, batches
