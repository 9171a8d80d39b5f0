"""Fit the readout of a run's moving average, at the start and at every evaluation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from daso.data.images.pool import ImageRows, Pool
from daso.data.training_data import TrainingData
from daso.evaluate.predict import represent_in_batches
from daso.files import Row
from daso.nets.encoders.patches import PatchEncoder
from daso.nets.network import Network
from daso.nets.readout import Block, Readout
from daso.readout.choice import Features, choose
from daso.readout.joining import OVERFIT_SCALE, Projected, join
from daso.readout.mixture import fit_mixture
from daso.readout.part import Mixture
from daso.readout.projection import MOST_ROWS, Projection
from daso.train.encoder.embeddings import EmbeddedData, Patches
from daso.train.encoder.patch_features import COMPONENTS, learn_patches, shuffled_rows

MOST, MOST_OF_A_CLASS, MOST_BETWEEN = 10_000, 50, 2_000
"""Unlabeled images whose features are computed for the first and the last fit, in all or for each
class, and for those on the way. The choice takes as many as those on the way, and so does the
projection of features that the training does not change. With 2,000 to 59,306
images of the ten classes of Fashion-MNIST the accuracy was the same within 0.1 points."""
MOST_KNOWN = 100_000
"""Images of a pool at most of which unchanging features are kept, 1 KB each."""
DIMENSIONS, MORE_DIMENSIONS, ENOUGH_IMAGES = 128, 256, 1_500
"""Components that are kept of the joined features, and of those with patches of enough images."""
WEIGHTS = (0.1, 0.3)
"""Weights of the unlabeled features to choose from."""
BESIDE_EMBEDDINGS = 0.7
"""Scale of the features of patches beside those of a frozen encoder."""


@dataclass
class _Known:
    """Components of features that do not change, of some images of a pool.

    Attributes:
        place: int64 (N,), where each image's components are; -1 if they are not known.
        components: (n, c).
    """

    place: Tensor
    components: Tensor

    def add(self, rows: Tensor, components: Tensor) -> None:
        self.place[rows] = torch.arange(len(rows)) + len(self.components)
        self.components = torch.cat([self.components, components])


@dataclass
class ReadoutFitter:
    """Fits readouts in one stage of a run.

    Mirroring, whether patches are read beside embeddings, and the weight of the unlabeled features
    are chosen once: by features for which no label was used in training. The readout keeps the
    choice.

    Attributes:
        pretrained: whether the network's features are useful before its training.
        learns: whether the encoder is trained.
    """

    part: Mixture
    data: TrainingData
    seed: int
    pretrained: bool
    learns: bool
    _fixed: dict[str, Projected] = field(default_factory=dict, init=False)
    _known: dict[int, _Known] = field(default_factory=dict, init=False)

    @property
    def fixed(self) -> tuple[str, ...]:
        """The kinds of features that the training does not change, in the order of their names."""
        patches = self._embedded is not None if self.data.are_vectors else self.part.join_patches
        return ("patches",) * patches + ("vector",) * self.data.are_vectors

    @property
    def _embedded(self) -> Patches | None:
        """The patches whose components follow the embeddings."""
        return self.data.patches if isinstance(self.data, EmbeddedData) else None

    @property
    def dimensions(self) -> int:
        """Principal components of the joined features."""
        unlabeled = self.data.unlabeled or ()
        enough = len(self.data.labeled) + len(unlabeled) >= ENOUGH_IMAGES
        more = self.fixed == ("patches",) and enough
        return self.part.dimensions or (MORE_DIMENSIONS if more else DIMENSIONS)

    def scale(self, kind: str) -> float:
        """Return the scale of a kind of features among those of other kinds."""
        if kind == "network":
            given = self.part.network_scale
            return given if given is not None else 1.0 if self.pretrained else OVERFIT_SCALE
        return BESIDE_EMBEDDINGS if kind == "patches" and self.data.are_vectors else 1.0

    @property
    def _pools(self) -> tuple[Pool, Pool]:
        """The labeled and the unlabeled images; without any of these, the labeled ones again."""
        return self.data.labeled, self.data.unlabeled or self.data.labeled

    @property
    def _mirrorings(self) -> tuple[int, ...]:
        """The numbers of mirrorings of each image that are compared."""
        numbers = self.part.mirrorings(self.data.flip)
        if self.data.are_vectors:
            return tuple(number for number in numbers if number <= self.data.mirrorings) or (0,)
        return numbers

    @property
    def most(self) -> int:
        """Unlabeled images of the first and the last fit, at most."""
        return max(MOST, MOST_OF_A_CLASS * len(self.data.class_names))

    def fit(self, network: Network, *, last: bool) -> Row:
        """Fit a network's readout, the first one or again; return what is new, as JSON values.

        Raises:
            FloatingPointError, LinAlgError: features or what is computed of them overflow.
        """
        return self.start(network) if network.readout is None else self.refit(network, last=last)

    @torch.no_grad()
    def start(self, network: Network) -> Row:
        """Give an untrained network its first readout; return what was chosen, as JSON values."""
        patches = None
        if "patches" in self.fixed:
            known = self._embedded
            patches = learn_patches(self.data, self.seed) if known is None else known.encoder
        forms, readouts = [], {}
        found: dict[tuple[int, str], Projected] = {}
        for mirrorings, fixed in itertools.product(self._mirrorings, self._joins):
            name = " ".join([str(mirrorings), *fixed])
            read = patches if "patches" in fixed else None
            readout = self._build(network, fixed, read, mirrorings)
            useful = self.pretrained or not fixed
            kinds = [kind for kind in readout.blocks if kind != "network" or useful]
            for kind in kinds:
                if (mirrorings, kind) not in found:
                    projected = self._project(network, readout, kind, MOST_BETWEEN)
                    found[mirrorings, kind] = projected
            few = {kind: found[mirrorings, kind] for kind in kinds}
            joined = join(list(few.values()), self.dimensions)
            joins = self._embedded is not None and "patches" in fixed
            forms.append(Features(name, joined.labeled, joined.unlabeled, joins))
            readouts[name] = readout, few
        given = self.part.mixture_weight
        choice = choose(
            forms,
            self.data.labeled.labels,
            len(self.data.class_names),
            WEIGHTS if given is None else (given,) if given else (),
            self.part.options,
            self.seed,
        )
        best = choice.best if given is None else choice.best_of(given)
        readout, few = readouts[best.name]
        readout.chosen.copy_(torch.tensor([best.unlabeled_weight or 0.0, best.temperature]))
        network.read_out(readout)
        more = {
            kind: self._extend(network, readout, kind, of_kind) for kind, of_kind in few.items()
        }
        self._fixed = {kind: of_kind for kind, of_kind in more.items() if kind in self.fixed}
        described = choice.describe(best) | {"mirrorings": readout.mirrorings}
        if self._embedded is not None:
            described |= {"patches": "patches" in more}
        return described | self._fit(readout, more)

    @torch.no_grad()
    def refit(self, network: Network, *, last: bool) -> Row:
        """Fit the readout of a network again, to its own features too."""
        readout = network.readout
        assert readout is not None
        kinds = [kind for kind in readout.blocks if kind in self.fixed or self.learns]
        most = self.most if last else MOST_BETWEEN
        return self._fit(
            readout, {kind: self._features(network, readout, kind, most) for kind in kinds}
        )

    @torch.no_grad()
    def represent(
        self, network: Network, images: ImageRows, index: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield the features that the output head classifies; see ``represent_in_batches``.

        What of them comes from patches is computed once for each image.
        """
        readout, fixed = network.readout, "patches"
        if readout is None or self.fixed != (fixed,) or len(images) > MOST_KNOWN:
            yield from represent_in_batches(network, images, index=index)
            return
        known = self._components(network, readout, fixed, images, index)
        others = [kind for kind in readout.blocks if kind != fixed and readout.uses(kind)]
        if not others:
            yield readout.join({fixed: known})
            return

        def encode(batch: Tensor) -> Tensor:
            return torch.stack([readout.project(network.encode, batch, kind) for kind in others])

        start = 0
        for components in represent_in_batches(network, images, encode, index):
            stop = start + components.shape[1]
            joined = dict(zip(others, components, strict=True)) | {fixed: known[start:stop]}
            yield readout.join(joined)
            start = stop

    def _components(
        self,
        network: Network,
        readout: Readout,
        kind: str,
        images: ImageRows,
        index: Tensor | None,
    ) -> Tensor:
        """Return the components of features that do not change, (n, c)."""
        fixed = self._features(network, readout, kind, self.most)
        width = len(cast(Block, readout.blocks[kind]).bias)
        known = self._known.get(id(images))
        if known is None:
            empty = fixed.labeled.new_zeros(0, width)
            known = self._known[id(images)] = _Known(torch.full((len(images),), -1), empty)
            pools = self.data.labeled, self.data.unlabeled
            chosen = shuffled_rows(self.data, self.most, self.seed)
            found_of = fixed.labeled, fixed.unlabeled
            for pool, rows, found in zip(pools, chosen, found_of, strict=True):
                if pool is not None and pool.images is images:
                    known.add(rows, F.pad(found, (0, width - found.shape[1])))
        rows = torch.arange(len(images)) if index is None else index.cpu()
        if len(missing := rows[known.place[rows] < 0]):
            project = partial(readout.project, network.encode, kind=kind)
            found = torch.cat(list(represent_in_batches(network, images, project, missing)))
            known.add(missing, found)
        return known.components[known.place[rows].to(known.components.device)]

    def _features(self, network: Network, readout: Readout, kind: str, most: int) -> Projected:
        """Return the projected features of one kind; those that do not change are kept."""
        if kind not in self.fixed:
            return self._project(network, readout, kind, most)
        if kind not in self._fixed:
            few = self._project(network, readout, kind, MOST_BETWEEN)
            self._fixed[kind] = self._extend(network, readout, kind, few)
        return self._fixed[kind].first(most)

    def _extend(self, network: Network, readout: Readout, kind: str, few: Projected) -> Projected:
        """Project the unlabeled images of the first and the last fit as some of them are."""
        if kind == "patches" and self._embedded is not None:
            return self._beside(self._embedded, self.most)
        more = shuffled_rows(self.data, self.most, self.seed)[1][len(few.unlabeled) :]
        if self.data.unlabeled is None or not len(more):
            return few

        def encode(images: Tensor) -> Tensor:
            return few.projection(readout.features(network.encode, images, kind))

        parts = represent_in_batches(network, self.data.unlabeled.images, encode, more)
        return replace(few, unlabeled=torch.cat([few.unlabeled, *parts]))

    @property
    def _joins(self) -> list[tuple[str, ...]]:
        """The kinds of features that do not change and are joined, to choose from."""
        return [self.fixed] if self._embedded is None else [("vector",), self.fixed]

    def _build(
        self,
        network: Network,
        fixed: Sequence[str],
        patches: PatchEncoder | None,
        mirrorings: int,
    ) -> Readout:
        dims = {}
        if patches is not None:
            dims["patches"] = patches.dim
        if "vector" in fixed:
            dims["vector"] = len(self.data.mean)
        if self.learns or self.pretrained or not dims:
            dims["network"] = network.dim
        size, classes = self.dimensions, len(self.data.class_names)
        built = Readout(dims, COMPONENTS, size, classes, patches, mirrorings=mirrorings)
        return built.to(network.mean.device)

    def _project(self, network: Network, readout: Readout, kind: str, most: int) -> Projected:
        """Fit a projection to features of one kind, and apply it to the images."""
        if kind == "patches" and self._embedded is not None:
            return self._beside(self._embedded, most)
        rows = shuffled_rows(self.data, most, self.seed)
        spread = max(1, math.ceil(sum(map(len, rows)) / MOST_ROWS))

        def features(images: Tensor) -> Tensor:
            return readout.features(network.encode, images, kind)

        def batches(pool: Pool, chosen: Tensor, encode: Callable[[Tensor], Tensor]) -> list[Tensor]:
            if not len(chosen):
                return []
            return list(represent_in_batches(network, pool.images, encode, chosen))

        pairs = list(zip(self._pools, rows, strict=True))
        samples = [batches(pool, some[::spread], features) for pool, some in pairs]
        found = torch.cat(list(itertools.chain(*samples)))
        if not bool(found.isfinite().all()):
            raise FloatingPointError(f"the {kind} features of some images are infinite or NaN")
        projection = Projection.fit(found, COMPONENTS)
        del found
        projected = []
        for (pool, some), sample in zip(pairs, samples, strict=True):
            components = projection.bias.new_empty(len(some), len(projection.bias))
            if sample:
                components[::spread] = torch.cat([projection(part) for part in sample])
            others = torch.arange(len(some)) % spread > 0
            if rest := batches(pool, some[others], lambda images: projection(features(images))):
                components[others] = torch.cat(rest)
            projected.append(components)
        return Projected(projection, projected[0], projected[1], self.scale(kind))

    def _beside(self, patches: Patches, most: int) -> Projected:
        """Return the components of patches that follow the embeddings."""
        start = len(self.data.mean)
        columns = slice(start, start + len(patches.projection.bias))
        rows = shuffled_rows(self.data, most, self.seed)
        labeled, unlabeled = (
            pool.images[some.to(pool.images.device)][:, 0, columns]
            for pool, some in zip(self._pools, rows, strict=True)
        )
        return Projected(patches.projection, labeled, unlabeled, self.scale("patches"))

    def _fit(self, readout: Readout, kinds: Mapping[str, Projected]) -> Row:
        """Fit the head to joined features, and write all of it into the readout."""
        joined = join(list(kinds.values()), self.dimensions)
        weight, temperature = readout.chosen.tolist()
        options = self.part.options
        unlabeled = joined.unlabeled[:0]
        if weight > 0:
            options, unlabeled = replace(options, unlabeled_weight=weight), joined.unlabeled
        labels, classes = self.data.labeled.labels, len(self.data.class_names)
        fit = fit_mixture(joined.labeled, labels, unlabeled, classes, options)
        if not bool(fit.head.weight.isfinite().all() & fit.prior.isfinite().all()):
            raise FloatingPointError("the fitted head is infinite or NaN")
        blocks = {
            name: (kind.projection, matrix)
            for (name, kind), matrix in zip(kinds.items(), joined.matrices, strict=True)
        }
        prior = fit.prior if weight > 0 else None
        readout.take(blocks, joined.bias, fit.head.scaled(1 / temperature), prior)
        return {} if prior is None else {"unlabeled_prior": prior.tolist()}
