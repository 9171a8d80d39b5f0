"""From a configuration to everything that a training needs: data, network, method, batches, one stage at a time."""

from __future__ import annotations

import dataclasses
import itertools
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from daso.compose import Recipe
from daso.data.formats.tar_shards import is_address
from daso.data.images.cache import Cache
from daso.data.open import NAMES, open_source
from daso.data.source import Source
from daso.data.training_data import TrainingData, prepare_data
from daso.errors import OptionError, RunError
from daso.nets.backbone import Backbone
from daso.nets.distributed import Processes, share_batch_norms
from daso.nets.recompute import recompute_activations
from daso.parts import Facts
from daso.plans.plan import Plan
from daso.train.config import RunConfig
from daso.train.encoder.bfloat16 import spare_bfloat16
from daso.train.encoder.build import build_network, default_network, named_encoder
from daso.train.encoder.embeddings import EmbeddedData, Progress, embed_data
from daso.train.encoder.pretrained import prepare_backbone
from daso.train.folder.checkpoint import (
    Checkpoint,
)
from daso.train.options import backbone_rate, base_learning_rate
from daso.train.step.batches import Batches
from daso.train.step.mapped_tables import tables_of
from daso.train.step.sampling import derive_seed
from daso.train.step.state import Training, choose_device


@dataclass(frozen=True)
class Prepared:
    """Everything built from a configuration, ready to train one stage of a run.

    Attributes:
        config: resolved.
        data: of the run.
        recipe: what the method's name stands for.
        plan: the stages of the run and what they hand on.
        stage: the one that is ready, counted from 0.
        training, batches: of the stage.
        processes: this process among those that train together; None: it is alone.
        backbone: the pretrained encoder that the run starts from or is frozen on, if there is one.
    """

    config: RunConfig
    data: TrainingData
    recipe: Recipe
    plan: Plan
    stage: int
    training: Training
    batches: Batches
    processes: Processes | None = None
    backbone: Backbone | None = None

    @property
    def first_step(self) -> int:
        """Steps of the stages before this one."""
        return sum(stage.steps for stage in self.plan.stages()[: self.stage])

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.plan.stages())

    @property
    def step(self) -> int:
        """Steps done, those of earlier stages included."""
        return self.first_step + self.training.step

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by name, not copied."""
        plan = {f"plan.{name}": value for name, value in self.plan.state_dict().items()}
        return {**self.training.tensors(), **plan}

    @property
    def is_last_stage(self) -> bool:
        return self.stage == len(self.plan.stages()) - 1

    def next_stage(self) -> Prepared:
        """Conclude this stage, which is trained, and return the next one, ready to train."""
        self.plan.conclude(self.stage, self.training.average.network, self.data)
        following = self.begin_stage(self.stage + 1)
        following.training.seconds = self.training.seconds
        return following

    def begin_stage(self, stage: int) -> Prepared:
        """Return stage *stage*, ready to train; an encoder that is kept comes from this one's moving average."""
        return _begin_stage(
            self.config,
            self.data,
            self.recipe,
            self.plan,
            stage,
            self.training,
            self.processes,
            self.backbone,
        )

    def at(self, checkpoint: Checkpoint) -> Prepared:
        """Return the stage of a checkpoint, in the state that it holds.

        Raises:
            RunError: its tensors are not those of this configuration.
        """
        state = {
            n[len("plan.") :]: t for n, t in checkpoint.tensors.items() if n.startswith("plan.")
        }
        try:
            self.plan.load_state_dict(state)
        except RuntimeError as error:
            raise RunError(f"{checkpoint.path} is of another configuration: {error}") from error
        ends = list(itertools.accumulate(stage.steps for stage in self.plan.stages()))
        stage = next((n for n, end in enumerate(ends) if checkpoint.step <= end), len(ends) - 1)
        there = self if stage == self.stage else self.begin_stage(stage)
        tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith("plan.")}
        there.training.load(tensors, checkpoint.step - there.first_step, checkpoint.seconds)
        return there


def prepare(
    config: RunConfig,
    source: Source | None = None,
    *,
    processes: Processes | None = None,
    encoder: nn.Module | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Build data, network, method and training from a configuration, and resolve its defaults.

    Args:
        config: what is wanted.
        source: the opened source, if the caller has it; else it is opened from the configuration.
        processes: this process among those that train together; None: it is alone.
        encoder: a module of one's own that maps normalised images, float (B, C, H, W), to features, float (B, D).
        folder: of the run, where it is resumed.
        progress: is told how many images are embedded, of how many, where the encoder is frozen.

    Returns:
        The first stage of the run.

    Raises:
        DasoError: an option or the data does not fit; nothing has been written.
    """
    options = config.train
    recipe = Recipe.parse(config.method)
    recipe.check_options(config.method_options)
    device = choose_device(options.device)
    if source is None:
        source = open_configured(config)
    images = data = prepare_data(source, config.split, options.seed, device, config.memory)
    backbone = prepare_backbone(options, images, encoder, folder)
    network = options.network or default_network(data.shape, options.resolution)
    if backbone is not None:
        network = backbone.name
        if options.freeze:
            embed = partial(embed_data, images, backbone, options, config.augmentation, progress)
            data = embed() if processes is None else processes.in_turn(embed)
    period = options.evaluation_period  # of the whole run, in each of its stages
    options = dataclasses.replace(options, network=network, evaluate_every=period)
    config = dataclasses.replace(config, train=options)

    plan = recipe.build_plan(_facts(data, data, options.steps, dim=0), config.method_options)
    first = _begin_stage(config, data, recipe, plan, 0, None, processes, backbone)
    method = first.training.method
    if plan.stages()[0].method is not None:
        stage = next(number for number, stage in enumerate(plan.stages()) if stage.method is None)
        facts = _facts(data, data, plan.stages()[stage].steps, first.training.network.dim)
        method = recipe.build_method(plan.facts(stage, facts), config.method_options)

    split = config.split
    if split.labeled_head is not None:
        split = dataclasses.replace(split, holdout=len(data.split.holdout))
    resolved = dataclasses.replace(
        config,
        data=config.data or source.place,
        size=None if images.are_vectors or len(set(images.shape[1:])) > 1 else images.shape[1],
        split=split,
        augmentation=first.batches.augmentation,
        method_options=recipe.resolved_options(method, plan),
        train=dataclasses.replace(
            config.train,
            learning_rate=base_learning_rate(options, method.learning_rate),
            backbone_rate=backbone_rate(options, method.learning_rate, backbone is not None),
            schedule=options.schedule or method.schedule,
            unlabeled_ratio=options.unlabeled_ratio or method.unlabeled_ratio,
            device=str(device),
        ),
    )
    return dataclasses.replace(first, config=resolved)


def _facts(data: TrainingData, given: TrainingData, steps: int, dim: int) -> Facts:
    return Facts(
        num_classes=len(data.class_names),
        dim=dim,
        class_counts=torch.from_numpy(data.class_counts),
        given_counts=torch.from_numpy(given.class_counts),
        total_steps=steps,
        num_unlabeled=0 if data.unlabeled is None else len(data.unlabeled),
        new_table=tables_of(data),
    )


def _begin_stage(
    config: RunConfig,
    data: TrainingData,
    recipe: Recipe,
    plan: Plan,
    number: int,
    before: Training | None,
    processes: Processes | None,
    backbone: Backbone | None,
) -> Prepared:
    stage = plan.stages()[number]
    options = dataclasses.replace(config.train, steps=stage.steps)
    if number > 0:
        options = dataclasses.replace(
            options, seed=derive_seed(options.seed, "stage", number) % 2**32
        )
    if stage.method is not None:
        # Its rate is that of SGD, and for all that learns.
        options = dataclasses.replace(
            options,
            learning_rate=stage.learning_rate,
            schedule=stage.schedule,
            optimizer="sgd",
            backbone_rate=None,
        )
    if stage.sampling is not None:
        options = dataclasses.replace(options, labeled_sampling=stage.sampling)
    stage_data = plan.data(number, data)

    torch.manual_seed(derive_seed(options.seed, "weights", 0))
    module = None if backbone is None else backbone.module
    encoder = named_encoder(options, data.shape, data.mean, data.std, module)
    if options.recompute:
        if options.compile or processes is not None:
            raise OptionError(
                "--recompute is for a training in one process and without --compile: leave it out"
            )
        recompute_activations(cast(nn.Module, encoder))
    facts = plan.facts(number, _facts(stage_data, data, stage.steps, encoder.dim))
    wanted, values = recipe, config.method_options
    if stage.method is not None:
        wanted = Recipe.parse(stage.method)
        values = {name: value for name, value in values.items() if name in wanted.hyperparameters()}
    with torch.random.fork_rng(
        devices=[]
    ):  # a method's own draws leave the initial weights as they are
        method = wanted.build_method(facts, values)
    heads = {"class": len(data.class_names), **method.heads}
    looks = None if backbone is None else backbone.preprocessing
    network = build_network(
        options, data.shape, encoder, heads, data.mean, data.std, method.output, looks
    )
    rate = backbone_rate(options, method.learning_rate, backbone is not None)
    options = dataclasses.replace(options, backbone_rate=rate)
    if stage.keeps_encoder:
        assert before is not None
        kept = cast(nn.Module, before.average.network.encoder).state_dict()
        cast(nn.Module, network.encoder).load_state_dict(kept)
        network.freeze_encoder()
    device = data.labeled.images.device
    network = network.to(device)
    spare_bfloat16(network, data.shape)
    if processes is not None:
        share_batch_norms(cast(nn.Module, network.encoder), compiled=options.compile)
        network.share(processes)
    batches = Batches(stage_data, method, options, config.augmentation, config.vectors)
    if options.compile:
        torch.compiler.reset()  # graphs of earlier stages would count towards its limit of versions of a function
    training = Training(network, method.to(device), options)
    return Prepared(config, data, recipe, plan, number, training, batches, processes, backbone)


def describe_data(
    data: TrainingData, backbone: Backbone | None = None, recipe: Recipe | None = None
) -> dict[str, Any]:
    """Return the content of ``data.json``: with the configuration, enough to rebuild the network.

    Args:
        data: of the run.
        backbone: its pretrained encoder.
        recipe: its method, of which reports need some facts.
    """

    def count(pool: Any) -> int:
        return 0 if pool is None else len(pool)

    def by_class(pool: Any) -> list[int] | None:
        counts = (
            None if pool is None else torch.bincount(pool.labels, minlength=len(data.class_names))
        )
        return None if counts is None else counts.tolist()

    truth = None
    if data.unlabeled is not None and bool((data.unlabeled.labels >= 0).all()):
        truth = torch.bincount(data.unlabeled.labels, minlength=len(data.class_names)).tolist()
    return {
        "class_names": list(data.class_names),
        "labeled_counts": data.class_counts.tolist(),
        "unlabeled_counts": truth,
        "unlabeled": count(data.unlabeled),
        "holdout": count(data.holdout),
        "test": count(data.test),
        "holdout_counts": by_class(data.holdout),
        "test_counts": by_class(data.test),
        "image_shape": list(data.image_shape if isinstance(data, EmbeddedData) else data.shape),
        "mean": list(data.mean),
        "std": list(data.std),
        "split_fingerprint": data.fingerprint,
        "images_fingerprints": data.images_fingerprints,
        **({} if backbone is None else {"backbone": backbone.describe()}),
        **({} if recipe is None else {"method": recipe.describe()}),
        **(data.describe_embeddings() if isinstance(data, EmbeddedData) else {}),
    }


def open_configured(config: RunConfig) -> Source:
    """Read the images of a run; see ``open_source``."""
    return open_source(
        config.source,
        data=None if config.data is None else Path(config.data),
        folders=config.folders,
        size=config.size,
        skip_bad=config.skip_bad,
        cache=None if config.cache is None else Cache(Path(config.cache)),
    )


def moved(config: RunConfig, data: Path | None, device: str | None = None) -> RunConfig:
    """Return a run's configuration with its files, or its device, elsewhere."""
    if data is not None:
        place = str(data.resolve())
        if config.source in NAMES or (config.data is not None and data.is_dir()):
            config = dataclasses.replace(config, data=place)
        else:
            # What lay beside the images lies beside them still.
            beside = {
                part: folder
                if is_address(folder)
                else os.path.normpath(Path(place) / os.path.relpath(folder, config.source))
                for part, folder in config.folders.items()
            }
            config = dataclasses.replace(config, source=place, folders=beside)
    if device is not None:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, device=device))
    return config
