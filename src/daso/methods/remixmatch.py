"""ReMixMatch: MixMatch whose aligned guesses on weak views teach strong ones, with rotations to recognise."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.errors import OptionError
from daso.methods.method import Batch, Method, PseudoLabels, Step, View
from daso.methods.mix import draw_mixup, encode_interleaved, mixup
from daso.methods.ramp import ramp
from daso.nets.network import Network
from daso.refine.align import Align
from daso.refine.guess import Guess, Refiner
from daso.refine.sharpen import sharpen


class ReMixMatch(Method):
    """The aligned, sharpened guess on a weak view is the soft label of that view and of two strong ones, all mixed.

    Berthelot et al.: *ReMixMatch*, ICLR 2020, arXiv 1911.09785, algorithm 1 and section 3: soft cross-entropy on
    mixtures of all images, on the first strong view unmixed, and on the angle by which that view was turned.

    Args:
        given_counts: int64, (K,), labelled images of each class, to whose shares guesses are aligned.
        unlabeled_prior: float, (K,), shares to align to instead, or None.
        align_temperature: exponent of these shares.
        total_steps: of the training.
        refine: improves the sharpened guess, e.g. DASO; its losses are added, on the first strong view.
        align: whether guesses are aligned. Default: unless the refiner takes the place of alignment, as DASO does.
        temperature: T of sharpening, > 0.
        mixup_alpha: parameter of the Beta distribution of the mixing factor, > 0.
        unlabeled_weight: lambda_u, of the mixtures that started from an unlabelled image, >= 0.
        premix_weight: of the loss on the first strong view unmixed, >= 0.
        rotation_weight: of the loss on turned images, >= 0.
        unlabeled_ramp: share of the training over which *unlabeled_weight* and *premix_weight* grow linearly from 0,
            0 to 1.

    Raises:
        OptionError: a value is out of range, or the images are not square.

    As in the code of DASO's authors, labelled images are weakly augmented, alignment is to the mean of the last
    steps, and the mixed batch goes through the network as in :class:`~daso.methods.mixmatch.MixMatch`. The weak
    and the first strong view share a pass with gradient, as in their ReMixMatch with DASO; in theirs without DASO
    each is a pass of its own. A refiner that asks for the labelled features of the network gets them from one more
    pass, without a gradient.
    """

    paper = "Berthelot et al., ICLR 2020, arXiv 1911.09785"
    unlabeled_views: tuple[View, ...] = ("weak", "strong", "strong")
    unlabeled_ratio = 1
    resizes_first = True
    refuses: ClassVar = {
        "supervised": "its labelled images are mixed, so their labels are soft",
        "terms": "its labelled images are mixed, so their features have no single label",
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
        for name, value, valid in (
            ("temperature", temperature, 0 < temperature < math.inf),
            ("mixup_alpha", mixup_alpha, 0 < mixup_alpha < math.inf),
            ("unlabeled_weight", unlabeled_weight, 0 <= unlabeled_weight < math.inf),
            ("premix_weight", premix_weight, 0 <= premix_weight < math.inf),
            ("rotation_weight", rotation_weight, 0 <= rotation_weight < math.inf),
            ("unlabeled_ramp", unlabeled_ramp, 0 <= unlabeled_ramp <= 1),
        ):
            if not valid:
                raise OptionError(f"ReMixMatch: {name} = {value!r} is out of range")
        refine = refine or Refiner()
        self.align = not refine.replaces_alignment if align is None else align
        self.alignment = (
            Align(given_counts, unlabeled_prior, align_temperature) if self.align else Refiner()
        )
        self.refine = refine
        self.total_steps = total_steps
        self.temperature = temperature
        self.mixup_alpha = mixup_alpha
        self.unlabeled_weight = unlabeled_weight
        self.premix_weight = premix_weight
        self.rotation_weight = rotation_weight
        self.needs_images = rotation_weight > 0
        self.unlabeled_ramp = unlabeled_ramp

    @property
    def heads(self) -> dict[str, int]:
        """One more, which tells by how many quarters an image was turned; none if that loss has no weight."""
        return {**super().heads, **({"rotation": 4} if self.rotation_weight else {})}

    def draw(self, labeled: int, unlabeled: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return what the parts drew, the factor and the partners of the mixtures, and quarter turns."""
        drawn = super().draw(labeled, unlabeled, generator)
        drawn |= draw_mixup(self.mixup_alpha, labeled + 3 * unlabeled, generator)
        return drawn | {"rotations": torch.randint(4, (unlabeled,), generator=generator)}

    def forward(self, network: Network, teacher: Network, batch: Batch) -> Step:
        """Return ``"labeled"``, ``"unlabeled"``, ``"premix"``, ``"rotation"``, the refiner's, and the pseudo-labels."""
        (images,), (weak_images, strong_images, other_images) = batch.labeled, batch.unlabeled
        if self.refine.observes:
            with torch.no_grad():
                own = network(images) if self.refine.observes_network else None
                self.refine.observe(images, own, batch.labels, teacher)
        weak, strong = network(torch.cat([weak_images, strong_images])).chunk(2)
        with torch.no_grad():
            weak = weak.detach()
            linear = network.classify(weak).softmax(1)
            guess = self.alignment(
                Guess(linear, weak, batch.indices, batch.step, {"linear": linear})
            )
            guess = self.refine(guess._replace(probs=sharpen(guess.probs, self.temperature)))
            confidence, pseudo_label = guess.probs.max(1)

        one_hot = F.one_hot(batch.labels, guess.probs.shape[1]).float()
        targets = mixup(torch.cat([one_hot, guess.probs, guess.probs, guess.probs]), batch.draws)
        inputs = network.normalize(torch.cat([images, weak_images, strong_images, other_images]))
        size = len(images)
        logits = network.classify(encode_interleaved(network, mixup(inputs, batch.draws), size))

        growing = ramp(batch.step, self.unlabeled_ramp, self.total_steps)
        premix = F.cross_entropy(network.classify(strong), guess.probs)
        losses = {
            "labeled": F.cross_entropy(logits[:size], targets[:size]),
            "unlabeled": self.unlabeled_weight
            * growing
            * F.cross_entropy(logits[size:], targets[size:]),
            "premix": self.premix_weight * growing * premix,
            **self._rotation(network, strong_images, batch.draws["rotations"]),
            **self.refine.losses(guess, strong),
        }
        labels = {name: probs.argmax(1) for name, probs in guess.parts.items()}
        everyone = torch.ones_like(confidence)
        return Step(losses, PseudoLabels({**labels, "final": pseudo_label}, confidence, everyone))

    def _rotation(self, network: Network, images: Tensor, rotations: Tensor) -> dict[str, Tensor]:
        """Return the loss of telling by how many quarters the images (N, C, H, W) were turned, if it has a weight."""
        if not self.rotation_weight:
            return {}
        turned = network(turn(network.normalize(images), rotations))
        loss = F.cross_entropy(network.classify(turned, "rotation"), rotations)
        return {"rotation": self.rotation_weight * loss}


def turn(images: Tensor, quarters: Tensor) -> Tensor:
    """Turn each of the images (N, C, H, W) anticlockwise by its number of quarters, int64 (N,), 0 to 3.

    Raises:
        OptionError: the images are not square.
    """
    height, width = images.shape[2:]
    if height != width:
        raise OptionError(
            f"ReMixMatch turns images by 90 degrees: they must be square, not {height} x {width}"
        )
    quarters = quarters[:, None, None, None]
    by_halves = torch.where(quarters >= 2, images.rot90(2, (2, 3)), images)
    return torch.where(quarters % 2 == 1, by_halves.rot90(1, (2, 3)), by_halves)
