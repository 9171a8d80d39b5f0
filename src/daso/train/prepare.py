"""Build data, network, method and batches from a configuration, one stage at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from daso.compose import Recipe
from daso.data.source import Source
from daso.data.training_data import TrainingData, prepare_data
from daso.errors import RunError
from daso.files import read_json
from daso.methods.method import Method, View
from daso.nets.backbone import Backbone
from daso.nets.distributed import Processes
from daso.nets.readout import Readout
from daso.parts import Facts
from daso.plans.plan import Plan
from daso.train.assemble import assemble
from daso.train.config import RunConfig
from daso.train.encoder.build import default_network, named_encoder
from daso.train.encoder.embeddings import Progress, embed_data
from daso.train.encoder.patch_features import beside_embeddings
from daso.train.encoder.precision import resolve_precision
from daso.train.encoder.pretrained import prepare_backbone, refuse_other
from daso.train.folder.best import BEST, model_folder
from daso.train.folder.checkpoint import Checkpoint, load_checkpoint, without_prefix
from daso.train.options import TrainOptions, backbone_rate, base_learning_rate
from daso.train.readout import ReadoutFitter
from daso.train.run_data import open_configured, refuse_other_data
from daso.train.step.batches import Batches
from daso.train.step.mapped_tables import tables_of
from daso.train.step.sampling import derive_seed
from daso.train.step.state import Training, choose_device


@dataclass(frozen=True)
class Prepared:
    """Everything that one stage of a run needs.

    Attributes:
        stage: the stage that is ready, counted from 0.
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
    readout: ReadoutFitter | None = None

    @property
    def first_step(self) -> int:
        return sum(stage.steps for stage in self.plan.stages()[: self.stage])

    @property
    def total_steps(self) -> int:
        return sum(stage.steps for stage in self.plan.stages())

    @property
    def step(self) -> int:
        """Finished steps, including earlier stages."""
        return self.first_step + self.training.step

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by name, not copied."""
        plan = {f"plan.{name}": value for name, value in self.plan.state_dict().items()}
        return {**self.training.tensors(), **plan}

    def any_process(self, flag: bool) -> bool:
        """Return whether *flag* is true in any of the processes that train together."""
        return flag if self.processes is None else self.processes.any(flag)

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
        """Return another stage, ready to train; it may keep the encoder of this one's average."""
        self.batches.close()
        shared = (self.config, self.data, self.recipe, self.plan, self.processes, self.backbone)
        return _begin_stage(*shared, stage, self.training)

    def at(self, checkpoint: Checkpoint) -> Prepared:
        """Return the stage of a checkpoint in its saved state.

        Raises:
            RunError: the tensors are of another configuration.
        """
        try:
            self.plan.load_state_dict(without_prefix(checkpoint.tensors, "plan."))
            readout = Readout.like(checkpoint.average())
        except (RuntimeError, ValueError) as error:
            raise RunError(f"{checkpoint.path} is of another configuration: {error}") from error
        ends = list(itertools.accumulate(stage.steps for stage in self.plan.stages()))
        stage = next((n for n, end in enumerate(ends) if checkpoint.step <= end), len(ends) - 1)
        prepared = self if stage == self.stage else self.begin_stage(stage)
        tensors = {n: t for n, t in checkpoint.tensors.items() if not n.startswith("plan.")}
        step = checkpoint.step - prepared.first_step
        if readout is not None:
            network = prepared.training.average.network
            network.read_out(readout.to(network.mean.device))
        prepared.training.load(tensors, step, checkpoint.seconds)
        return prepared

    def load_best(self, folder: Path, warn: Callable[[str], None]) -> int | None:
        """Load the moving average that was best on the hold-out, if the run deploys it.

        Returns its step; None if the run deploys the last network.
        """
        best = model_folder(folder, self.config.train.deploy)
        if best.name != BEST:
            return None
        checkpoint = load_checkpoint(best, warn)
        self.training.average.network.load_state_dict(checkpoint.average())
        self.training.answers = None
        return checkpoint.step


def prepare(
    config: RunConfig,
    source: Source | None = None,
    *,
    processes: Processes | None = None,
    encoder: nn.Module | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare the first stage of a run from its configuration, and resolve its defaults.

    Args:
        source: the opened source; None: it is opened from the configuration.
        encoder: custom module that maps normalized images, float (B, C, H, W), to features, float
            (B, D).
        folder: folder of a run that is resumed.

    Raises:
        DasoError: an option or the data does not fit; nothing has been written.
    """
    options = config.train
    recipe = Recipe.parse(config.method)
    recipe.check_options(config.method_options)
    recipe.check_readout(options.steps)
    device = choose_device(options.device)
    if source is None:
        source = open_configured(config)
    images = data = prepare_data(source, config.split, options.seed, device, config.memory)
    options = resolve_precision(options, device, data.are_vectors, processes)
    facts = _facts(data, data, options.steps, dim=0)
    plan = recipe.build_plan(facts, config.method_options)
    readout = recipe.build_readout(facts, config.method_options)
    backbone = prepare_backbone(options, images, encoder, folder)
    network = options.network or default_network(data.shape, options.resolution)
    if backbone is not None:
        network = backbone.name
        if options.freeze:
            known = _facts(images, images, options.steps, backbone.module.dim)
            method = check_method(recipe, facts, known, config.method_options)
            # Only if it is asked for: a mirror image takes as long to embed as the image.
            mirrorings = 0 if readout is None else max(readout.mirrorings(flip=False))
            made = _views_to_embed(options, method, plan)
            views = config.augmentation, made, progress, mirrorings
            embed = partial(embed_data, images, backbone, options, *views)
            data = embed() if processes is None else processes.in_turn(embed)
            if readout is not None and readout.join_patches:
                data = beside_embeddings(data, images, options.seed, folder)
    # The evaluation period is that of the whole run, in each of its stages.
    options = replace(options, network=network, evaluate_every=options.evaluation_period)
    config = replace(config, train=options)

    first = _begin_stage(config, data, recipe, plan, processes, backbone)
    method = first.training.method
    if stage := plan.own_stage():
        facts = _facts(data, data, plan.stages()[stage].steps, first.training.network.dim)
        method = recipe.build_method(plan.facts(stage, facts), config.method_options)

    split = config.split
    if split.labeled_head is not None:
        split = replace(split, holdout=len(data.split.holdout))
    resolved = replace(
        config,
        data=config.data or source.place,
        journal=source.journal["entries"] if source.journal else 0,
        size=None if images.are_vectors or len(set(images.shape[1:])) > 1 else images.shape[1],
        split=split,
        augmentation=first.batches.augmentation,
        method_options=recipe.resolved_options(method, plan, readout),
        train=replace(
            options,
            learning_rate=base_learning_rate(options, method.learning_rate),
            backbone_rate=backbone_rate(options, method.learning_rate, backbone is not None),
            schedule=options.schedule or method.schedule,
            unlabeled_ratio=options.unlabeled_ratio or method.unlabeled_ratio,
            device=str(device),
        ),
    )
    return replace(first, config=resolved)


def prepare_again(
    folder: Path,
    config: RunConfig,
    *,
    processes: Processes | None = None,
    encoder: nn.Module | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare a run from its folder; see ``prepare``.

    Raises:
        RunError: the data or the pretrained network has changed since the run began.
    """
    read_json(folder / "data.json")  # a damaged one is refused before long work
    prepared = prepare(
        config, processes=processes, encoder=encoder, folder=folder, progress=progress
    )
    # A hyper-parameter that a part got after the run began is no change of its configuration.
    recorded = {
        n: v for n, v in prepared.config.method_options.items() if n in config.method_options
    }
    prepared = replace(prepared, config=replace(prepared.config, method_options=recorded))
    refuse_other_data(folder, prepared.config, prepared.data)
    refuse_other(folder, prepared.backbone)
    return prepared


def _views_to_embed(options: TrainOptions, method: Method, plan: Plan) -> dict[str, list[View]]:
    """Return the views that a run draws from, by pool, weak ones first."""
    used = {*method.labeled_views, *method.unlabeled_views}
    counts: dict[View, int] = {"weak": options.weak_versions, "strong": options.strong_versions}
    made = [view for view, count in counts.items() if view in used for _ in range(count)]
    both = method.unlabeled_views or plan.adopts_unlabeled
    return {"labeled": made, "unlabeled": made} if both else {"labeled": made}


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


def check_method(recipe: Recipe, run: Facts, first: Facts, values: Mapping[str, Any]) -> Method:
    """Build the method once, so that what it refuses is said before long work.

    Args:
        run: facts for the plan. first: facts for the method.
    """
    with torch.random.fork_rng(devices=[]):
        plan = recipe.build_plan(run, values)
        recipe.build_readout(run, values)
        return recipe.build_method(plan.facts(plan.own_stage(), first), values)


def _begin_stage(
    config: RunConfig,
    data: TrainingData,
    recipe: Recipe,
    plan: Plan,
    processes: Processes | None,
    backbone: Backbone | None,
    number: int = 0,
    before: Training | None = None,
) -> Prepared:
    stage = plan.stages()[number]
    options = replace(config.train, steps=stage.steps)
    if number > 0:
        options = replace(options, seed=derive_seed(options.seed, "stage", number) % 2**32)
    if stage.method is not None:
        # The stage's learning rate is for SGD and for all parameters.
        options = replace(options, learning_rate=stage.learning_rate, schedule=stage.schedule)
        options = replace(options, optimizer="sgd", backbone_rate=None)
    if stage.sampling is not None:
        options = replace(options, labeled_sampling=stage.sampling)
    stage_data = plan.data(number, data)

    torch.manual_seed(derive_seed(options.seed, "weights", 0))
    module = None if backbone is None else backbone.module
    encoder = named_encoder(options, data.shape, data.mean, data.std, module)
    facts = plan.facts(number, _facts(stage_data, data, stage.steps, encoder.dim))
    stage_recipe, values = recipe, config.method_options
    if stage.method is not None:
        stage_recipe = Recipe.parse(stage.method)
        values = {n: v for n, v in values.items() if n in stage_recipe.hyperparameters()}
    # The method's own draws leave the initial weights unchanged.
    with torch.random.fork_rng(devices=[]):
        method = stage_recipe.build_method(facts, values)
    kept = None
    if stage.keeps_encoder:
        assert before is not None
        kept = before.average.network.encoder.state_dict()
    parts = (method, encoder, stage_data, options, config.augmentation, config.vectors)
    training, batches = assemble(*parts, backbone=backbone, frozen=kept, processes=processes)
    readout = stage_recipe.build_readout(facts, values)
    fitter = None
    if readout is not None:
        weights = training.network.encoder.parameters()
        # Without a step its features stay random: they are not even computed.
        learns = stage.steps > 0 and any(weight.requires_grad for weight in weights)
        pretrained = backbone is not None and not stage_data.are_vectors
        flip = config.augmentation.flip
        seen = stage_data if flip is None else replace(stage_data, flip=flip)
        fitter = ReadoutFitter(readout, seen, options.seed, pretrained, learns)
        training.represent = fitter.represent
    run = (config, data, recipe, plan, number, training, batches)
    return Prepared(*run, processes, backbone, fitter)
