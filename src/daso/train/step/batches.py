"""Batches: a pure function of the seed and the step, so a resumed run sees what an undisturbed one sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from daso.balance import Sampling
from daso.data.training_data import ImageRows, TrainingData
from daso.errors import OptionError
from daso.methods.method import Batch, Method, View
from daso.train.options import TrainOptions
from daso.train.step.augmentation import Augmentation, VectorAugmentation, Views
from daso.train.step.sampling import Order, WeightedOrder, derive_seed
from daso.train.view_options import VectorViewOptions, ViewOptions
from daso.views.geometry import move

AHEAD_ELEMENTS = 2**22
"""Of the images of the steps whose views are made at once: one large batch takes less time than several small ones."""
AHEAD_STEPS = 16
EFFECTIVE_NUMBER_BETA = 0.999


def sampling_weights(labels: Tensor, sampling: Sampling) -> Tensor:
    """Return how likely each labelled image is to be drawn, float64 (N,), up to a factor.

    ``"class-balanced"``: 1 / n_k, so that all classes are equally likely (Kang et al., ICLR 2020);
    ``"effective-number"``: (1 - beta) / (1 - beta^n_k) with beta = 0.999 (Cui et al., CVPR 2019), as the DASO
    authors' code samples; ``"uniform"``: 1.
    """
    counts = torch.bincount(labels).double()
    per_class = {
        "uniform": torch.ones_like(counts),
        "class-balanced": 1 / counts,
        "effective-number": (1 - EFFECTIVE_NUMBER_BETA) / (1 - EFFECTIVE_NUMBER_BETA**counts),
    }[sampling]
    return per_class[labels]


class Reader:
    """Takes the images of a step from a pool; what the next ones need of a file is read meanwhile.

    Args:
        rows: of the pool.
        order: of a step, counted from 0, which images it needs, int64 on the host.
        ahead: steps whose images are taken at once.
    """

    def __init__(self, rows: ImageRows, order: Callable[[int], Tensor], ahead: int) -> None:
        self.rows, self.order, self.ahead = rows, order, ahead
        self._thread = None if isinstance(rows, Tensor) else ThreadPoolExecutor(1)
        self._coming: tuple[int, Future[Tensor]] | None = None

    def __call__(self, first: int) -> tuple[Tensor, Tensor]:
        """Return the places, int64 on the device, and the images of the steps from *first* on."""
        at = self._places(first)
        on_device = move(at, self.rows.device)
        if isinstance(self.rows, Tensor):
            return on_device, self.rows.index_select(0, on_device)
        assert self._thread is not None
        step, coming = self._coming or (None, None)
        images = coming.result() if coming is not None and step == first else self.rows[at]
        following = first + self.ahead
        self._coming = (
            following,
            self._thread.submit(self.rows.__getitem__, self._places(following)),
        )
        return on_device, images

    def _places(self, first: int) -> Tensor:
        return torch.cat([self.order(step) for step in range(first, first + self.ahead)])


class Batches:
    """Draws the images of a step and puts them into the views that a method names.

    Args:
        data: the pools.
        method: names its views.
        options: batch size and seed.
        augmentation: of the views of images.
        vectors: of the views of vectors.

    Attributes:
        augmentation: of the views of images, defaults worked out.

    Raises:
        OptionError: the method learns from unlabelled images and there are none, or from images and there are vectors.
    """

    def __init__(
        self,
        data: TrainingData,
        method: Method,
        options: TrainOptions,
        augmentation: ViewOptions | None = None,
        vectors: VectorViewOptions | None = None,
    ) -> None:
        self.labeled, self.labeled_views = data.labeled, method.labeled_views
        self.unlabeled, self.unlabeled_views = data.unlabeled, method.unlabeled_views
        if self.unlabeled_views and data.unlabeled is None:
            raise OptionError(
                f"{type(method).__name__} learns from unlabelled images and the data has none: give some "
                f"(an unlabelled folder, --unlabeled-head) or use --method supervised"
            )
        if method.needs_images and data.are_vectors:
            raise OptionError(
                f"{type(method).__name__} turns images by 90 degrees and the data are vectors: --rotation-weight 0"
            )
        self.device = data.labeled.images.device
        self.seed = options.seed
        self.augmentation = augmentation = augmentation or ViewOptions()
        if (
            augmentation.strong_side is not None
            and options.resolution is None
            and not data.are_vectors
        ):
            raise OptionError(
                f"strong_side = {augmentation.strong_side}: the network would see views of this side and other images "
                f"as they are; give --resolution too"
            )
        if data.are_vectors:
            self._views: Views = VectorAugmentation(vectors or VectorViewOptions(), data)
        else:
            _, height, width = data.shape
            images = Augmentation(augmentation, height, width, data.flip)
            self._views, self.augmentation = images, images.options
        self._draw = method.draw
        self.batch = options.batch
        self.unlabeled_batch = options.batch * (options.unlabeled_ratio or method.unlabeled_ratio)
        if options.labeled_sampling == "uniform":
            self._labeled_order: Callable[[int], Tensor] = Order(
                len(data.labeled), options.batch, options.seed, "labeled"
            )
        else:
            weights = sampling_weights(data.labeled.labels.cpu(), options.labeled_sampling)
            self._labeled_order = WeightedOrder(weights, options.batch, options.seed, "labeled")
        if data.unlabeled is not None:
            self._unlabeled_order = Order(
                len(data.unlabeled), self.unlabeled_batch, options.seed, "unlabeled"
            )

        largest = max(self.batch, self.unlabeled_batch) * data.labeled.images[0].numel()
        self._ahead = max(1, min(AHEAD_STEPS, AHEAD_ELEMENTS // largest))
        self._labeled_reader = Reader(data.labeled.images, self._labeled_order, self._ahead)
        if data.unlabeled is not None:
            self._unlabeled_reader = Reader(
                data.unlabeled.images, self._unlabeled_order, self._ahead
            )
        self._ready: dict[int, Batch] = {}

    def __call__(self, step: int) -> Batch:
        """Return the batch of step *step*, counted from 0; those of the next steps are made along with it."""
        if step not in self._ready:
            self._ready = dict(self._prepare(step))
        return self._ready.pop(step)

    def indices(self, step: int) -> dict[str, list[int]]:
        """Return the places, in their pools, of the images that step *step*, counted from 0, learns from."""
        found = {"labeled": self._labeled_order(step).tolist()}
        if self.unlabeled_views and self.unlabeled is not None:
            found["unlabeled"] = self._unlabeled_order(step).tolist()
        return found

    def _prepare(self, first: int) -> Iterator[tuple[int, Batch]]:
        """Yield some steps from *first* on and their batches. What is drawn for a step depends on it alone."""
        steps = range(first, first + self._ahead)
        generators = [
            torch.Generator().manual_seed(derive_seed(self.seed, "views", step)) for step in steps
        ]
        indices, labeled = self._gather(self._labeled_reader, first, self.labeled_views, generators)
        labels = [self.labeled.labels[at] for at in indices]
        indices = [at[:0] for at in indices]
        unlabeled: list[tuple[Tensor, ...]] = [()] * len(steps)
        if self.unlabeled_views and self.unlabeled is not None:
            indices, unlabeled = self._gather(
                self._unlabeled_reader, first, self.unlabeled_views, generators
            )
        for place, step in enumerate(steps):
            chance = torch.Generator().manual_seed(derive_seed(self.seed, "draws", step))
            drawn = self._draw(len(labels[place]), len(indices[place]), chance)
            draws = {name: move(value, self.device) for name, value in drawn.items()}
            number = move(torch.tensor(step), self.device)
            yield (
                step,
                Batch(
                    labeled[place], labels[place], unlabeled[place], indices[place], number, draws
                ),
            )

    def _gather(
        self, reader: Reader, first: int, names: tuple[View, ...], generators: list[torch.Generator]
    ) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
        """Return, for each step, the places of its images in a pool, and their views."""
        at, images = reader(first)
        size = len(at) // len(generators)
        drawn = [
            [self._views.draw(name, size, generator) for name in names] for generator in generators
        ]
        made = [
            torch.split(self._views.make(name, images, [step[place] for step in drawn]), size)
            for place, name in enumerate(names)
        ]
        return list(torch.split(at, size)), list(zip(*made, strict=True))
