"""Refuse options that cannot work before the images are read, which may take minutes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch

from daso.cli.training.command import TrainRequest
from daso.cli.training.defaults import configure_like
from daso.compose import Recipe
from daso.errors import OptionError
from daso.files import check_writable
from daso.nets.encoders import Encoder
from daso.nets.network import build_encoder, build_vector_encoder
from daso.nets.recompute import recompute_activations
from daso.parts import Facts
from daso.train.encoder.embeddings import embedding_folder
from daso.train.encoder.pretrained import open_named
from daso.train.options import TrainOptions
from daso.train.prepare import check_method
from daso.train.step.cuda_graph import check_recordable
from daso.train.step.state import choose_device

CLASSES, IMAGES, FEATURES = 10, 100, 64
"""Of a data set that every option is tried on."""


def refuse_early(request: TrainRequest, *, shared: bool) -> None:
    """Refuse options that no images could make valid; *shared*: several processes train.

    Raises:
        DasoError: a value is out of range, options exclude each other, a network does not exist, or
            a folder cannot be written.
    """
    command, options = request.command, request.train
    recipe = Recipe.parse(request.method)
    values = {n: v for n, v in request.options.items() if n in recipe.hyperparameters()}
    if command.like is not None:
        config = configure_like(command.like, request)
        recipe, options, values = Recipe.parse(config.method), config.train, config.method_options
    if command.cache is not None:
        check_writable(command.cache.expanduser())
    if options.freeze and not shared:
        check_writable(embedding_folder(options))
    if options.recompute and shared:
        raise OptionError("--recompute needs one process; leave it out")
    _try_method(recipe, options, values, shared)
    _try_network(options)


def _try_method(
    recipe: Recipe, options: TrainOptions, values: Mapping[str, Any], shared: bool
) -> None:
    counts = torch.full((CLASSES,), IMAGES)
    facts = Facts(CLASSES, FEATURES, counts, counts, options.steps, CLASSES * IMAGES)
    method = check_method(recipe, facts, facts, values)
    if options.cuda_graph:
        check_recordable(method, choose_device(options.device), shared)


def _try_network(options: TrainOptions) -> None:
    """Open the pretrained encoder, which may have to be fetched, or build the named one."""
    if options.freeze and options.layer_decay < 1:
        raise OptionError("--layer-decay: a frozen encoder is not trained; leave it out")
    backbone = open_named(options)
    with torch.device("meta"):
        if options.freeze:
            build_vector_encoder(options.embedding_network, [0.0], [1.0])
        if backbone is not None:
            encoder = backbone.module
        elif options.network is None:
            return
        else:
            encoder = _build(options.network)
    if options.recompute and not options.freeze:
        recompute_activations(encoder)


def _build(name: str) -> Encoder:
    try:
        return build_encoder(name, 3, 32)
    except OptionError as refused:
        with contextlib.suppress(OptionError):
            return build_vector_encoder(name, [0.0], [1.0])
        raise refused from None
