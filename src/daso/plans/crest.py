"""CReST: generations from scratch, each with more labeled images, most of them of rare classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from daso.data.images.pool import Pool, join_rows, select_rows
from daso.data.training_data import TrainingData
from daso.errors import OptionError, check_range
from daso.evaluate.predict import predict_in_batches
from daso.nets.network import Network
from daso.parts import Facts, IdleOptions, NewTable
from daso.plans.plan import Plan, Stage
from daso.refine.align import Align


class CReST(Plan):
    """Train repeatedly from scratch; images labeled by the last network join the labeled ones.

    A class that is rare among the labels is seldom guessed, but mostly rightly so: its guesses are
    adopted in full, those of frequent classes only in part.

    Wei et al.: *CReST: A Class-Rebalancing Self-Training Framework for Imbalanced Semi-Supervised
    Learning*, CVPR 2021, arXiv 2102.09559, section 3.2. After each generation but the last its
    moving average labels all unlabeled images, without augmentation. Of the images of the class
    with the r-th most labels (r from 0) the share (N_(K-1-r) / N_0)^crest_power is adopted, the
    most confident first, where N_r is that class's number of given labels. Every generation starts
    again from the given labels, and the unlabeled images stay in their pool. With ABC its
    classifier does the labeling.

    Parts that rebalance the labeled loss (logit adjustment, LDAM, class-balanced weights, ABC) use
    the counts of given and adopted labels together, as logit adjustment does in the code of DASO's
    authors. Distribution alignment, DARP and the logit adjustment of a trained network use the
    given labels, as there.

    Args:
        class_counts: int64, (K,), N, labeled images of each class.
        total_steps: of all generations.
        num_unlabeled: number of unlabeled images, at least 1.
        generations: number of generations of equal length, >= 2; the last one also takes the
            remainder.
        crest_power: alpha, >= 0. Smaller: more images of frequent classes are adopted; 0: all.

    Raises:
        OptionError: a value is out of range, or there are no unlabeled images.

    Departures from the authors' code of DASO: classes are ranked by their counts, where theirs come
    sorted; a method with distribution alignment starts a generation without the previous one's
    means; a share of the training refers to one generation.
    """

    paper = "Wei et al., CVPR 2021, arXiv 2102.09559"
    adopts_unlabeled = True

    def __init__(
        self,
        class_counts: Tensor,
        total_steps: int,
        num_unlabeled: int,
        new_table: NewTable = torch.empty,
        *,
        generations: int = 5,
        crest_power: float = 1 / 3,
    ) -> None:
        super().__init__(total_steps)
        self.generations = check_range("generations", generations, 2, total_steps)
        self.crest_power = check_range("crest_power", crest_power, 0)
        if num_unlabeled < 1:
            raise OptionError("CReST needs unlabeled images, and the data has none")
        counts, rank = class_counts.cpu().double().sort(descending=True, stable=True)
        share = torch.empty_like(counts)
        share[rank] = (counts.flip(0) / counts[0]) ** crest_power
        self.share = nn.Buffer(share, persistent=False)
        self.adopted = nn.Buffer(new_table((num_unlabeled,), dtype=torch.int64).fill_(-1))

    def stages(self) -> tuple[Stage, ...]:
        length = self.total_steps // self.generations
        last = self.total_steps - (self.generations - 1) * length
        return (*[Stage(length)] * (self.generations - 1), Stage(last))

    def data(self, stage: int, data: TrainingData) -> TrainingData:
        assert data.unlabeled is not None
        labels = self.adopted.to(data.labeled.labels.device)
        chosen = labels >= 0
        pool = Pool(
            join_rows(data.labeled.images, select_rows(data.unlabeled.images, chosen)),
            torch.cat([data.labeled.labels, labels[chosen]]),
        )
        counts = data.class_counts + self._adopted_counts().numpy()
        return dataclasses.replace(data, labeled=pool, class_counts=counts)

    def conclude(self, stage: int, network: Network, data: TrainingData) -> None:
        """Label the unlabeled images and choose those that the next generation adopts."""
        assert data.unlabeled is not None
        answers = [
            logits.cpu().double().softmax(1).max(1)
            for logits in predict_in_batches(network, data.unlabeled.images)
        ]
        confidence, predicted = map(torch.cat, zip(*answers, strict=True))
        self.adopted.copy_(adopt(confidence, predicted, self.share))

    def describe(self) -> dict[str, list[float]]:
        return {"adopted": self._adopted_counts().tolist()}

    def _adopted_counts(self) -> Tensor:
        return self.adopted[self.adopted >= 0].bincount(minlength=len(self.share))


class CReSTPlus(CReST):
    """CReST whose guesses are aligned, to a distribution that gets more balanced each generation.

    Wei et al., as above, section 3.3: the target of distribution alignment is raised to the power
    t = 1 - f + f t_min, where f runs from 0 in the first generation to 1 in the last.

    Args:
        align_min: t_min, power of the alignment's target in the last generation, 0 to 1.
        shared: of :class:`CReST`.
    """

    brings = ("align",)

    def __init__(
        self,
        class_counts: Tensor,
        total_steps: int,
        num_unlabeled: int,
        new_table: NewTable = torch.empty,
        *,
        align_min: float = 0.5,
        **shared: Any,
    ) -> None:
        super().__init__(class_counts, total_steps, num_unlabeled, new_table, **shared)
        self.align_min = check_range("align_min", align_min, 0, 1)

    @classmethod
    def idle_options(cls, options: Mapping[str, Any], parts: Sequence[type[Any]]) -> IdleOptions:
        if options.get("align") is False and Align not in parts:
            yield ("align_min",), "with --align False nothing is aligned, and CReST+ is CReST"

    def facts(self, stage: int, facts: Facts) -> Facts:
        done = stage / (self.generations - 1)
        return dataclasses.replace(facts, align_temperature=1 - done + done * self.align_min)


def adopt(confidence: Tensor, predicted: Tensor, share: Tensor) -> Tensor:
    """Choose a share of the images predicted as each class, the most confident first.

    Args:
        confidence: float, (N,), the largest probability.
        predicted: int64, (N,), its class.
        share: float, (K,), 0 to 1.

    Returns:
        int64, (N,): the predicted class of the chosen images, -1 for the others.
    """
    order = confidence.argsort(descending=True, stable=True)
    order = order[predicted[order].argsort(stable=True)]  # class by class, the most confident first
    counts = predicted.bincount(minlength=len(share))
    within = torch.arange(len(order)) - (counts.cumsum(0) - counts)[predicted[order]]
    chosen = order[within < (share * counts).floor()[predicted[order]]]
    adopted = torch.full_like(predicted, -1)
    adopted[chosen] = predicted[chosen]
    return adopted
