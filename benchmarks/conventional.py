"""The usual pipeline of FixMatch and DASO, as the yardstick of benchmarks/speed.py.

Written for comparison only, in the plainest form. Worker processes of torch's DataLoader augment
one image after another with Pillow. The network runs eagerly on contiguous float32 NCHW tensors, in
one pass over labeled, weak and strong images. DASO keeps a list of one tensor per class, and the
moving average is a loop. benchmarks/speed.py gives it what its users can have without changing it:
the allocator's setting of our own training, and the fastest number of workers.
tests/test_speed_benchmark.py checks that it computes the same numbers.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pillow_augment import Array, Augmentation
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, get_worker_info


class ImageBatch(NamedTuple):
    """A batch of the loaders: float32 images (B or U, C, H, W), int64 labels (B,)."""

    labeled: Tensor
    labels: Tensor
    weak: Tensor
    strong: Tensor


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, in [0, 1]."""

    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, image: Array) -> Tensor:
        """Turn one uint8 image, (H, W) or (H, W, 3), into a normalized tensor (C, H, W)."""
        pixels = torch.from_numpy(np.array(image if image.ndim == 3 else image[:, :, None]))
        scaled = pixels.permute(2, 0, 1).contiguous().float().div(255)
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return (scaled - mean[:, None, None]) / std[:, None, None]


class Images(Dataset[tuple[Tensor, ...]]):
    """Images with labels in the weak view, or without labels in the weak and the strong view."""

    def __init__(
        self,
        images: Array,
        labels: Tensor | None,
        normalization: Normalization,
        padding: int,
        cutout: int,
    ) -> None:
        self.images, self.labels, self.normalization = images, labels, normalization
        self.augmentation = Augmentation(images.shape[1], padding, cutout, random.Random(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image, views = self.images[index], self.augmentation
        weak = self.normalization(views.weak(image))
        if self.labels is not None:
            return weak, self.labels[index]
        return weak, self.normalization(views.strong(image))


def seed_worker(_: int) -> None:
    worker = get_worker_info()
    assert worker is not None
    dataset = worker.dataset
    assert isinstance(dataset, Images)
    dataset.augmentation.generator = random.Random(worker.seed)


def load_batches(
    labeled: Images, unlabeled: Images, batch: int, unlabeled_ratio: int, workers: int
) -> Iterator[ImageBatch]:
    """Yield batches without end, each pool from a loader of its own with *workers* processes."""

    def load(images: Images, size: int) -> Iterator[list[Tensor]]:
        sampler = RandomSampler(images, replacement=True, num_samples=2**40)
        loader = DataLoader(
            images,
            batch_size=size,
            sampler=sampler,
            num_workers=workers,
            drop_last=True,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=seed_worker,
        )
        return iter(loader)

    pairs = zip(load(labeled, batch), load(unlabeled, batch * unlabeled_ratio), strict=False)
    return (ImageBatch(x, y, weak, strong) for (x, y), (weak, strong) in pairs)


class ConventionalDASO:
    """Queue, similarity classifier, blending and alignment, class by class."""

    def __init__(
        self,
        num_classes: int,
        queue_length: int = 256,
        prototype_temperature: float = 0.05,
        dist_temperature: float = 1.5,
        warmup_steps: int = 0,
        histogram_period: int = 100,
    ) -> None:
        self.num_classes, self.queue_length = num_classes, queue_length
        self.prototype_temperature, self.dist_temperature = prototype_temperature, dist_temperature
        self.warmup_steps, self.histogram_period = warmup_steps, histogram_period
        self.queue: list[Tensor | None] = [None] * num_classes
        self.similarity = nn.CosineSimilarity(dim=2)
        self.history: list[Tensor] = []
        self.distribution: Tensor | None = None

    @torch.no_grad()
    def enqueue(self, features: Tensor, labels: Tensor) -> None:
        for k in torch.unique(labels).tolist():
            held, arrived = self.queue[k], features[torch.where(labels == k)[0]]
            queue = arrived if held is None else torch.cat([held, arrived])
            self.queue[k] = queue[-self.queue_length :]

    @torch.no_grad()
    def prototypes(self, like: Tensor) -> Tensor:
        """Return the mean (K, D) of every queue, zero where nothing has come."""
        zero = torch.zeros_like(like[0])
        return torch.stack([zero if held is None else held.mean(0) for held in self.queue])

    def logits(self, features: Tensor, prototypes: Tensor) -> Tensor:
        """Return the similarities (N, K) of features (N, D)."""
        cosines: Tensor = self.similarity(features[:, None, :], prototypes[None, :, :])
        return cosines / self.prototype_temperature

    @torch.no_grad()
    def blend(self, linear: Tensor, semantic: Tensor, step: int) -> Tensor:
        """Return the final pseudo-labels (U, K) and take them into the histogram."""
        probs = linear
        if step >= self.warmup_steps and self.distribution is not None:
            weights = self.distribution ** (1 / self.dist_temperature)
            weight = (weights / weights.max())[linear.argmax(1)][:, None]
            probs = (1 - weight) * linear + weight * semantic
        self.history.append(probs.argmax(1))
        if (step + 1) % self.histogram_period == 0:
            counts = torch.bincount(torch.cat(self.history), minlength=self.num_classes)
            self.distribution = counts / counts.sum()
            self.history = []
        return probs

    def align(self, semantic: Tensor, strong: Tensor, prototypes: Tensor, step: int) -> Tensor:
        loss = -(semantic * F.log_softmax(self.logits(strong, prototypes), 1)).sum(1).mean()
        return loss if step >= self.warmup_steps else 0 * loss


class Conventional:
    """FixMatch, or FixMatch and DASO, with the optimizer and the moving average.

    The encoder, its weights in the contiguous layout, and the classifier are copied.
    """

    def __init__(
        self,
        encoder: nn.Module,
        classifier: nn.Module,
        daso: ConventionalDASO | None = None,
        *,
        threshold: float = 0.95,
        learning_rate: float = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        ema_decay: float = 0.999,
    ) -> None:
        self.model = nn.ModuleDict(
            {"encoder": copy.deepcopy(encoder), "classifier": copy.deepcopy(classifier)}
        )
        for parameter in self.model.parameters():
            parameter.data = parameter.data.contiguous()
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.daso, self.threshold, self.ema_decay = daso, threshold, ema_decay
        parameters = self.model.parameters()
        self.optimizer = torch.optim.SGD(
            parameters, learning_rate, momentum, weight_decay=weight_decay, nesterov=True
        )
        self.model.train()
        self.average.train()
        self.step = 0

    @torch.no_grad()
    def teacher_features(self, images: Tensor) -> Tensor:
        """Return the features (B, D) by the moving average, which stays in training mode."""
        features: Tensor = self.average["encoder"](images)
        return features

    def losses(self, batch: ImageBatch) -> dict[str, Tensor]:
        sizes = [len(batch.labeled), len(batch.weak), len(batch.strong)]
        features = self.model["encoder"](torch.cat([batch.labeled, batch.weak, batch.strong]))
        _, weak_features, strong_features = features.split(sizes)
        labeled, weak, strong = self.model["classifier"](features).split(sizes)
        probs = torch.softmax(weak.detach(), 1)
        losses = {"labeled": F.cross_entropy(labeled, batch.labels)}
        if self.daso is not None:
            self.daso.enqueue(self.teacher_features(batch.labeled), batch.labels)
            prototypes = self.daso.prototypes(features)
            semantic = torch.softmax(self.daso.logits(weak_features.detach(), prototypes), 1)
            probs = self.daso.blend(probs, semantic, self.step)
            losses["align"] = self.daso.align(semantic, strong_features, prototypes, self.step)
        confidence, targets = probs.max(1)
        mask = confidence.ge(self.threshold).float()
        losses["unlabeled"] = (F.cross_entropy(strong, targets, reduction="none") * mask).mean()
        return losses

    @torch.no_grad()
    def update_average(self) -> None:
        decay = min(1 - 1 / (self.step + 1), self.ema_decay)
        for average, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            average.mul_(decay).add_(value, alpha=1 - decay)
        for held, now in zip(self.average.buffers(), self.model.buffers(), strict=True):
            if now.is_floating_point():
                held.mul_(decay).add_(now, alpha=1 - decay)
            else:
                held.copy_(now)

    def advance(self, batch: ImageBatch) -> dict[str, Tensor]:
        losses = self.losses(batch)
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.update_average()
        self.step += 1
        return losses
