"""The mixture readout as a part of a method's name: ``supervised+la+mixture``."""

from __future__ import annotations

from typing import Literal

from daso.errors import check_choice, check_range
from daso.parts import Part
from daso.readout.mixture import MixtureOptions


class Mixture(Part):
    """Classify by a mixture over labeled and unlabeled features, in place of the trained head.

    At the start and at every evaluation, features of the moving average are joined with those of
    image patches, which need no training, and a linear head is fitted to them in seconds; see
    ``fit_mixture``. The class distribution of the unlabeled images is estimated, not assumed. By
    cross-validation on the labels, at the start, the unlabeled features get more or less weight, or
    none where they would mislead.

    Args:
        mixture_weight: c, weight of all unlabeled features relative to that of the labeled ones,
            >= 0 (default: chosen by cross-validation on the labels, or no weight).
        dimensions: d, principal components of the features, at least 2 (default: 256 with patches
            of 1,500 images or more, else 128).
        shrinkage: share of the identity in the covariance of the classes, > 0, at most 1.
        mirror: average the features of an image with those of its mirror images: ``"none"``;
            ``"horizontal"``: left and right exchanged; ``"both"``: top and bottom too, for images
            without an up and down, such as those of a microscope or from the air; ``"auto"``: none
            or left and right, chosen by cross-validation on the labels; of a frozen backbone none,
            since a mirror image takes as long to embed as the image.
        join_patches: join the features of the network with those of image patches; embeddings of a
            frozen backbone unless cross-validation on the labels speaks against it.
        network_scale: scale of the network's features among others', > 0 (default: 0.2, or 1 if the
            network starts from pretrained weights).
    """

    paper = "Coates & Ng, ICML 2011; Nigam et al., Machine Learning 2000; joined here"
    kind = "readout"
    balances = True

    def __init__(
        self,
        *,
        mixture_weight: float | None = None,
        dimensions: int | None = None,
        shrinkage: float = 0.3,
        mirror: Literal["auto", "none", "horizontal", "both"] = "auto",
        join_patches: bool = True,
        network_scale: float | None = None,
    ) -> None:
        super().__init__()
        if mixture_weight is not None:
            check_range("mixture_weight", mixture_weight, 0)
        if network_scale is not None:
            check_range("network_scale", network_scale, above=0)
        check_choice("mirror", mirror, ("auto", "none", "horizontal", "both"))
        if dimensions is not None:
            check_range("dimensions", dimensions, 2)
        check_range("shrinkage", shrinkage, most=1, above=0)
        self.mixture_weight = mixture_weight
        self.dimensions = dimensions
        self.shrinkage = shrinkage
        self.mirror = mirror
        self.join_patches = join_patches
        self.network_scale = network_scale

    def mirrorings(self, flip: bool) -> tuple[int, ...]:
        """Return the numbers of mirrorings of each image to choose from.

        Args:
            flip: whether a mirrored image keeps its class.
        """
        return {"auto": (0, 1) if flip else (0,), "none": (0,), "horizontal": (1,), "both": (3,)}[
            self.mirror
        ]

    @property
    def options(self) -> MixtureOptions:
        return MixtureOptions(shrinkage=self.shrinkage)
