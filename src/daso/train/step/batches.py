"""Batches: a pure function of the seed and the step, so a resumed run sees the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from daso.balance import Sampling
from daso.data.images.pool import ImageRows
from daso.data.training_data import TrainingData
from daso.errors import OptionError, flag
from daso.methods.method import Batch, Method, View
from daso.train.options import TrainOptions
from daso.train.step.augmentation import Augmentation, VectorAugmentation
from daso.train.step.sampling import Order, WeightedOrder, derive_seed
from daso.train.view_options import VectorViewOptions, ViewOptions
from daso.views.geometry import move

AHEAD_ELEMENTS = 2**22
"""Pixel values whose views are computed at once: a large batch is faster than small ones."""
AHEAD_STEPS = 16
EFFECTIVE_NUMBER_BETA = 0.999


def sampling_weights(labels: Tensor, sampling: Sampling) -> Tensor:
    """Return the relative probability of drawing each labeled image, float64 (N,).

    ``"class-balanced"``: 1 / n_k, so all classes are equally likely (Kang et al., ICLR 2020);
    ``"effective-number"``: (1 - beta) / (1 - beta^n_k) with beta = 0.999 (Cui et al., CVPR 2019),
    as the DASO authors' code samples; ``"uniform"``: 1.
    """
    counts = torch.bincount(labels).double()
    per_class = {
        "uniform": torch.ones_like(counts),
        "class-balanced": 1 / counts,
        "effective-number": (1 - EFFECTIVE_NUMBER_BETA) / (1 - EFFECTIVE_NUMBER_BETA**counts),
    }[sampling]
    return per_class[labels]


class PoolReader:
    """Reads the images of several steps from a pool; prefetches the next ones from a file."""

    def __init__(self, rows: ImageRows, order: Callable[[int], Tensor], ahead: int) -> None:
        self.rows, self.order, self.ahead = rows, order, ahead
        self._thread: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[Tensor]] | None = None

    def __call__(self, first: int) -> tuple[Tensor, Tensor]:
        """Return the indices, int64 on the device, and the images of the steps from *first* on."""
        index = self._indices(first)
        on_device = move(index, self.rows.device)
        if isinstance(self.rows, Tensor):
            return on_device, self.rows.index_select(0, on_device)
        coming = self._next
        images = coming[1].result() if coming and coming[0] == first else self.rows[index]
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="daso-images")
        following = first + self.ahead
        reading = self._thread.submit(self.rows.__getitem__, self._indices(following))
        self._next = (following, reading)
        return on_device, images

    def _indices(self, first: int) -> Tensor:
        return torch.cat([self.order(step) for step in range(first, first + self.ahead)])

    def close(self) -> None:
        """End the reading thread; a later call starts it again."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._next = None


class Batches:
    """Draws the images of a step and computes the views that a method names.

    Attributes:
        augmentation: the views of images, with their defaults resolved.

    Raises:
        OptionError: the method needs unlabeled images, or images, and the data has none.
    """

    def __init__(
        self,
        data: TrainingData,
        method: Method,
        options: TrainOptions,
        augmentation: ViewOptions | None = None,
        vectors: VectorViewOptions | None = None,
    ) -> None:
        self.labeled, self.unlabeled = data.labeled, data.unlabeled
        self.labeled_views, self.unlabeled_views = method.labeled_views, method.unlabeled_views
        if self.unlabeled_views and data.unlabeled is None:
            raise OptionError(
                f"{type(method).__name__} learns from unlabeled images and the data has none: add "
                f"an unlabeled folder or --unlabeled-head, or use --method supervised"
            )
        if method.needs_images and data.are_vectors:
            name = type(method).__name__
            raise OptionError(f"{name} rotates images, not vectors: use --rotation-weight 0")
        self.device = data.labeled.images.device
        self.seed = options.seed
        self.augmentation = augmentation = augmentation or ViewOptions()
        if data.are_vectors:
            self._views: Augmentation | VectorAugmentation = VectorAugmentation(
                vectors or VectorViewOptions(), data
            )
        else:
            if augmentation.strong_side is not None and options.resolution is None:
                raise OptionError(
                    f"strong_side = {augmentation.strong_side} ({flag('strong_side')}) needs a "
                    f"resolution: the network "
                    f"would see views and other images at different sizes; add --resolution"
                )
            _, height, width = data.shape
            images = Augmentation(augmentation, height, width, data.flip)
            self._views, self.augmentation = images, images.options
        self._draw = method.draw
        self.batch = size = options.batch
        self.unlabeled_batch = size * (options.unlabeled_ratio or method.unlabeled_ratio)
        seed = options.seed
        if options.labeled_sampling == "uniform":
            labeled_order: Order | WeightedOrder = Order(len(data.labeled), size, seed, "labeled")
        else:
            weights = sampling_weights(data.labeled.labels.cpu(), options.labeled_sampling)
            labeled_order = WeightedOrder(weights, size, seed, "labeled")
        largest = max(size, self.unlabeled_batch) * data.labeled.images[0].numel()
        self._ahead = max(1, min(AHEAD_STEPS, AHEAD_ELEMENTS // largest))
        self._readers = {"labeled": PoolReader(data.labeled.images, labeled_order, self._ahead)}
        if self.unlabeled_views and data.unlabeled is not None:
            order = Order(len(data.unlabeled), self.unlabeled_batch, seed, "unlabeled")
            self._readers["unlabeled"] = PoolReader(data.unlabeled.images, order, self._ahead)
        self._ready: dict[int, Batch] = {}

    def __call__(self, step: int) -> Batch:
        """Return the batch of step *step*, counted from 0; the next ones are computed with it."""
        if step not in self._ready:
            self._ready = dict(self._prepare(step))
        return self._ready.pop(step)

    def indices(self, step: int) -> dict[str, list[int]]:
        """Return the indices, within their pools, of the images of step *step*, counted from 0."""
        return {name: reader.order(step).tolist() for name, reader in self._readers.items()}

    def close(self) -> None:
        """End the threads that read images; a later call starts them again."""
        for reader in self._readers.values():
            reader.close()

    def _prepare(self, first: int) -> Iterator[tuple[int, Batch]]:
        """Yield steps from *first* on with their batches; a step's draws depend on it alone."""
        steps = range(first, first + self._ahead)
        generators = [
            torch.Generator().manual_seed(derive_seed(self.seed, "views", step)) for step in steps
        ]
        indices, labeled = self._gather("labeled", first, self.labeled_views, generators)
        labels = [self.labeled.labels[index] for index in indices]
        indices = [index[:0] for index in indices]
        unlabeled: list[tuple[Tensor, ...]] = [()] * len(steps)
        if "unlabeled" in self._readers:
            indices, unlabeled = self._gather("unlabeled", first, self.unlabeled_views, generators)
        for n, step in enumerate(steps):
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "draws", step))
            drawn = self._draw(len(labels[n]), len(indices[n]), generator)
            draws = {name: move(value, self.device) for name, value in drawn.items()}
            number = move(torch.tensor(step), self.device)
            yield step, Batch(labeled[n], labels[n], unlabeled[n], indices[n], number, draws)

    def _gather(
        self, pool: str, first: int, names: tuple[View, ...], generators: list[torch.Generator]
    ) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
        """Return, for each step, the indices of its images in a pool, and their views."""
        index, images = self._readers[pool](first)
        size = len(index) // len(generators)
        drawn = [
            [self._views.draw(name, size, generator) for name in names] for generator in generators
        ]
        views = [
            torch.split(self._views.make(name, images, [step[n] for step in drawn]), size)
            for n, name in enumerate(names)
        ]
        return list(torch.split(index, size)), list(zip(*views, strict=True))
