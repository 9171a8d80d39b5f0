"""ReMixMatch: MixMatch whose aligned guesses on weak views teach strong views, with rotations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.errors import OptionError, check_range
from daso.methods.method import Batch, Method, PseudoLabels, Step, View
from daso.methods.mix import draw_mixup, encode_interleaved, mixup
from daso.methods.ramp import ramp
from daso.nets.network import Network
from daso.parts import IdleOptions
from daso.refine.align import Align
from daso.refine.guess import Guess, Refiner
from daso.refine.sharpen import sharpen


class ReMixMatch(Method):
    """The aligned, sharpened guess on a weak view labels it and two strong views; all are mixed.

    Berthelot et al.: *ReMixMatch*, ICLR 2020, arXiv 1911.09785, algorithm 1 and section 3: soft
    cross-entropy on mixtures of all images and on the first strong view unmixed, and cross-entropy
    on the angle by which that view was rotated.

    Args:
        given_counts: int64, (K,), labeled images of each class, whose shares are aligned to.
        unlabeled_prior: float, (K,), shares to align to instead, or None.
        align_temperature: exponent of these shares.
        refine: improves the sharpened guess, e.g. DASO; its losses are added, on the first strong
            view.
        align: whether guesses are aligned. Default: yes, unless the refiner replaces alignment, as
            DASO does.
        temperature: T of sharpening, > 0.
        mixup_alpha: parameter of the Beta distribution of the mixing factor, > 0.
        unlabeled_weight: lambda_u, weight of the loss on mixtures that started from an unlabeled
            image, >= 0.
        premix_weight: weight of the loss on the first strong view unmixed, >= 0.
        rotation_weight: weight of the loss on rotated images, >= 0.
        unlabeled_ramp: share of the training over which *unlabeled_weight* and *premix_weight* grow
            linearly from 0, 0 to 1.

    Raises:
        OptionError: a value is out of range, or the images are not square.

    As in the code of DASO's authors, labeled images are weakly augmented, the mean for alignment is
    that of the last steps, and the mixed batch goes through the network as in
    :class:`~daso.methods.mixmatch.MixMatch`. The weak and the first strong view share a pass with
    gradient, as in their ReMixMatch with DASO; in theirs without DASO each is a pass of its own. A
    refiner that observes the network's labeled features gets them from one more pass, without a
    gradient.
    """

    paper = "Berthelot et al., ICLR 2020, arXiv 1911.09785"
    unlabeled_views: tuple[View, ...] = ("weak", "strong", "strong")
    unlabeled_ratio = 1
    resizes_first = True
    refuses: ClassVar = {
        "supervised": "its labeled images are mixed, so their labels are soft",
        "terms": "its labeled images are mixed, so their features have no single label",
    }

    def __init__(
        self,
        given_counts: Tensor,
        unlabeled_prior: Tensor | None,
        align_temperature: float,
        total_steps: int,
        *,
        refine: Refiner | None = None,
        align: bool | None = None,
        temperature: float = 0.5,
        mixup_alpha: float = 0.75,
        unlabeled_weight: float = 1.5,
        premix_weight: float = 0.5,
        rotation_weight: float = 0.5,
        unlabeled_ramp: float = 0.016,
    ) -> None:
        super().__init__()
        self.temperature = check_range("temperature", temperature, above=0)
        self.mixup_alpha = check_range("mixup_alpha", mixup_alpha, above=0)
        self.unlabeled_weight = check_range("unlabeled_weight", unlabeled_weight, 0)
        self.premix_weight = check_range("premix_weight", premix_weight, 0)
        self.rotation_weight = check_range("rotation_weight", rotation_weight, 0)
        self.unlabeled_ramp = check_range("unlabeled_ramp", unlabeled_ramp, 0, 1)
        refine = refine or Refiner()
        self.align = not refine.replaces_alignment if align is None else align
        self.alignment = (
            Align(given_counts, unlabeled_prior, align_temperature) if self.align else Refiner()
        )
        self.refine = refine
        self.total_steps = total_steps
        self.needs_images = rotation_weight > 0

    @classmethod
    def idle_options(cls, options: Mapping[str, Any], parts: Sequence[type[Any]]) -> IdleOptions:
        if options["unlabeled_weight"] == options["premix_weight"] == 0:
            yield ("unlabeled_ramp",), "both losses that it scales have the weight 0"

    @property
    def heads(self) -> dict[str, int]:
        """One more, ``"rotation"``, for the number of quarter turns, if that loss has a weight."""
        return {**super().heads, **({"rotation": 4} if self.rotation_weight else {})}

    def draw(self, labeled: int, unlabeled: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the random numbers of the parts, of the mixtures, and the quarter turns."""
        drawn = super().draw(labeled, unlabeled, generator)
        drawn |= draw_mixup(self.mixup_alpha, labeled + 3 * unlabeled, generator)
        return drawn | {"rotations": torch.randint(4, (unlabeled,), generator=generator)}

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return ``"labeled"``, ``"unlabeled"``, ``"premix"``, ``"rotation"`` and the refiner's."""
        (images,), (weak_images, strong_images, other_images) = batch.labeled, batch.unlabeled
        if self.refine.observes:
            with torch.no_grad():
                labeled = network(images) if self.refine.observes_network else None
                self.refine.observe(images, labeled, batch.labels, teacher)
        weak, strong = network(torch.cat([weak_images, strong_images])).chunk(2)
        with torch.no_grad():
            weak = weak.detach()
            linear = network.classify(weak).softmax(1)
            guess = Guess(linear, weak, batch.indices, batch.step, {"linear": linear})
            guess = self.alignment(guess)
            guess = self.refine(guess._replace(probs=sharpen(guess.probs, self.temperature)))

        one_hot = F.one_hot(batch.labels, guess.probs.shape[1]).to(guess.probs.dtype)
        targets = mixup(torch.cat([one_hot, guess.probs, guess.probs, guess.probs]), batch.draws)
        inputs = network.normalize(torch.cat([images, weak_images, strong_images, other_images]))
        size = len(images)
        logits = network.classify(encode_interleaved(network, mixup(inputs, batch.draws), size))

        growth = ramp(batch.step, self.unlabeled_ramp, self.total_steps)
        mixed = F.cross_entropy(logits[size:], targets[size:])
        premix = F.cross_entropy(network.classify(strong), guess.probs)
        losses = {
            "labeled": F.cross_entropy(logits[:size], targets[:size]),
            "unlabeled": self.unlabeled_weight * growth * mixed,
            "premix": self.premix_weight * growth * premix,
            **self._rotation(network, strong_images, batch.draws["rotations"]),
            **self.refine.losses(guess, strong),
        }
        return Step(losses, PseudoLabels.of(guess))

    def _rotation(self, network: Network, images: Tensor, rotations: Tensor) -> dict[str, Tensor]:
        """Return the loss on images (N, C, H, W) rotated by quarter turns, if it has a weight."""
        if not self.rotation_weight:
            return {}
        turned = network(turn(network.normalize(images), rotations))
        loss = F.cross_entropy(network.classify(turned, "rotation"), rotations)
        return {"rotation": self.rotation_weight * loss}


def turn(images: Tensor, quarters: Tensor) -> Tensor:
    """Rotate each of the images (N, C, H, W) anticlockwise by quarter turns, int64 (N,), 0 to 3.

    Raises:
        OptionError: the images are not square.
    """
    height, width = images.shape[2:]
    if height != width:
        raise OptionError(
            f"ReMixMatch rotates images by 90 degrees, and {width} x {height} is not square; "
            f"--rotation-weight 0 turns this off"
        )
    quarters = quarters[:, None, None, None]
    by_halves = torch.where(quarters >= 2, images.rot90(2, (2, 3)), images)
    return torch.where(quarters % 2 == 1, by_halves.rot90(1, (2, 3)), by_halves)
