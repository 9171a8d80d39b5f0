"""The part of a network that classifies in place of its head: projected features of several views.

A readout is fitted, not trained: ``daso.train.readout`` computes its buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.nets.encoders.patches import PatchEncoder
from daso.readout.logistic import LinearHead
from daso.readout.projection import Projection, root

NAME = "readout"
"""Name of the readout as the head of a network."""
MIRRORINGS = ((3,), (2,), (2, 3))
"""Dimensions of images that are reversed: left and right, top and bottom, both."""


class Block(nn.Module):
    """Maps features (B, D) of one kind to components (B, c), and these to their share of (B, d)."""

    def __init__(self, dim: int, components: int, size: int) -> None:
        super().__init__()
        self.center = nn.Buffer(torch.zeros(dim))
        self.matrix = nn.Buffer(torch.zeros(dim, components))
        self.bias = nn.Buffer(torch.zeros(components))
        self.rooted = nn.Buffer(torch.zeros((), dtype=torch.bool))
        self.share = nn.Buffer(torch.zeros(components, size))

    def forward(self, features: Tensor) -> Tensor:
        """Return the components, see ``Projection``."""
        unit = F.normalize(root(features, self.rooted) - self.center, dim=1)
        return unit @ self.matrix + self.bias

    def projection(self) -> Projection:
        """Return the projection that was taken, without the components that it does not have."""
        kept = int(self.matrix.any(0).sum())
        return Projection(bool(self.rooted), self.center, self.matrix[:, :kept], self.bias[:kept])


class Encode(Protocol):
    """Maps images or vectors to features of a kind, ``"network"`` or ``"vector"``."""

    def __call__(self, images: Tensor, kind: str) -> Tensor: ...


def mean_of_views(encode: Callable[[Tensor], Tensor], images: Tensor, mirrorings: int) -> Tensor:
    """Return the mean of the features of images (B, C, H, W) and of their first mirrorings."""
    features = encode(images)
    for dims in MIRRORINGS[:mirrorings]:
        features = features + encode(images.flip(dims))
    return features / (1 + mirrorings)


class Readout(nn.Module):
    """Projects features of the network, of patches or of the vectors themselves, and classifies.

    Args:
        dims: length D of the features of each kind that is joined: ``"network"``, ``"patches"``,
            ``"vector"``.
        components: c, of each kind before they are joined.
        size: d, coordinates of the projection.
        classes: K.
        patches: encoder of patches, if they are joined.
        mirrorings: how many of ``MIRRORINGS`` there are of each image; the features of all are
            averaged with its own.

    Attributes:
        chosen: the weight of the unlabeled features, 0 for none, and the temperature.
        prior: float (K,), estimated share of each class among the unlabeled images, > 0; uniform
            where they are not used.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        components: int,
        size: int,
        classes: int,
        patches: PatchEncoder | None = None,
        *,
        mirrorings: int = 0,
    ) -> None:
        super().__init__()
        # In an order that a saved state, whose names are sorted, does not change.
        self.blocks = nn.ModuleDict(
            {name: Block(dims[name], components, size) for name in sorted(dims)}
        )
        self.patches = patches
        self.mirrorings = mirrorings
        self.bias = nn.Buffer(torch.zeros(size))
        self.weight = nn.Buffer(torch.zeros(size, classes))
        self.intercept = nn.Buffer(torch.zeros(classes))
        self.chosen = nn.Buffer(torch.tensor([0.0, 1.0]))
        self.prior = nn.Buffer(torch.full((classes,), 1 / classes))
        # Its length says how images are mirrored, so that a state describes its structure.
        self.mirror = nn.Buffer(torch.ones(mirrorings))

    @classmethod
    def like(cls, state: Mapping[str, Tensor]) -> Readout | None:
        """Return a readout with the structure of the one in a network's state, if it has one."""
        own = {n.removeprefix("readout."): t for n, t in state.items() if n.startswith("readout.")}
        if not own:
            return None
        centers = {n.split(".")[1]: t for n, t in own.items() if n.endswith(".center")}
        patches = None
        of_patches = {n: t for n, t in own.items() if n.startswith("patches.")}
        if of_patches:
            patches = PatchEncoder.like(of_patches)
        dims = {name: len(center) for name, center in centers.items()}
        if patches is not None and dims["patches"] != patches.dim:
            raise ValueError(f"the readout takes {dims['patches']} features of other patches")
        shares = [tensor for name, tensor in own.items() if name.endswith(".share")]
        if not shares:
            raise ValueError("the readout is of an earlier version; train the run again")
        components = len(shares[0])
        size, classes = own["weight"].shape
        return cls(dims, components, size, classes, patches, mirrorings=len(own["mirror"]))

    def features(self, encode: Encode, images: Tensor, kind: str) -> Tensor:
        """Return the features of one kind, float (B, D), of images, vectors or embeddings.

        Of embeddings (B, V, D) the versions after the first are those of mirrored images.
        """
        if images.dim() == 3:
            versions = images[:, : 1 + self.mirrorings].unbind(1)
            return torch.stack([encode(version, kind) for version in versions]).mean(0)
        mirrorings = self.mirrorings if images.dim() == 4 else 0
        if kind == "patches":
            assert self.patches is not None
            return mean_of_views(self.patches, images, mirrorings)
        return mean_of_views(lambda view: encode(view, kind), images, mirrorings)

    def project(self, encode: Encode, images: Tensor, kind: str) -> Tensor:
        """Return the components of the features of one kind, float (B, c).

        Embeddings are followed by the components of the patches of their images, if these are read.
        """
        if kind == "patches" and images.dim() < 4:
            plain = images[:, 0] if images.dim() == 3 else images
            return plain[:, -len(cast(Block, self.blocks[kind]).bias) :]
        return cast(Tensor, self.blocks[kind](self.features(encode, images, kind)))

    def join(self, components: Mapping[str, Tensor]) -> Tensor:
        """Return the projected features, float (B, d), given the components of the kinds in use."""
        blocks = cast("Mapping[str, Block]", self.blocks)
        parts = [of_kind @ blocks[kind].share for kind, of_kind in components.items()]
        return torch.stack(parts).sum(0) + self.bias

    def uses(self, kind: str) -> bool:
        """Whether features of a kind count: those of an untrained network do not."""
        return bool(cast(Block, self.blocks[kind]).share.any())

    def forward(self, encode: Encode, images: Tensor) -> Tensor:
        """Return the projected features, float (B, d)."""
        return self.join({kind: self.project(encode, images, kind) for kind in self.blocks})

    def classify(self, features: Tensor) -> Tensor:
        """Return the logits, float (B, K), of projected features (B, d)."""
        return features @ self.weight + self.intercept

    @torch.no_grad()
    def take(
        self,
        blocks: Mapping[str, tuple[Projection, Tensor]],
        bias: Tensor,
        head: LinearHead,
        prior: Tensor | None = None,
    ) -> None:
        """Take what was fitted; kinds without a block, and coordinates beyond d, are ignored.

        Args:
            blocks: by kind of features, its projection, and the matrix that follows, (c, d).
            bias: (d,), added after the matrices.
            prior: (K,); None: uniform.
        """
        size = len(bias)
        self.bias.zero_()[:size] = bias
        self.weight.zero_()[:size] = head.weight
        for block in cast("Iterable[Block]", self.blocks.values()):
            for tensor in (block.matrix, block.bias, block.share):
                tensor.zero_()
        for kind, (projection, matrix) in blocks.items():
            block = cast(Block, self.blocks[kind])
            block.center.copy_(projection.center)
            block.rooted.fill_(projection.rooted)
            kept = len(projection.bias)
            block.matrix[:, :kept], block.bias[:kept] = projection.matrix, projection.bias
            block.share[:kept, :size] = matrix
        self.intercept.copy_(head.bias)
        self.prior.fill_(1 / len(self.prior))
        if prior is not None:
            self.prior.copy_(prior.clamp(min=1e-8))
