"""ABC: an auxiliary classifier that is trained on all classes equally."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from daso.errors import check_range
from daso.losses.class_balanced import check_counts
from daso.nets.network import Network
from daso.terms.term import Outputs, Term

EPOCHS = 500


class ABC(Term):
    """Train a second head on balanced random subsets of each batch; it classifies at test time.

    The learner's own head learns from all images, which makes good features. The auxiliary head
    uses the same features and learns from a balanced selection of labels and of its own confident
    pseudo-labels.

    Lee, Shin, Kim: *ABC: Auxiliary Balanced Classifier for Class-Imbalanced Semi-Supervised
    Learning*, NeurIPS 2021, arXiv 2110.10368, equations 1 to 5:

    * a labeled image of class k is used with probability N_min / N_k;
    * an unlabeled image is used if the head's probability on the weak view reaches the threshold,
      and with a probability that falls in 500 steps from 1 to N_min / N_k of the guessed class;
    * the target on the strong view is the whole distribution guessed on the weak view, not its most
      probable class.

    Args:
        class_counts: int64, (K,), N_k, labeled images of each class, at least 1 each.
        balanced_threshold: probability from which a guess of the auxiliary head is used, 0 to 1.

    Raises:
        OptionError: a class has no labeled image, or a value is out of range.

    Departures from the authors' code of DASO: N_min is the least count, not that of the last class;
    the loss on labels is cross-entropy whatever the learner's own is (theirs takes over its class
    weights); with DASO the head's guesses are blended as the learner's are, also where the blend is
    not by distribution; without DASO theirs ignores logit adjustment.
    """

    paper = "Lee et al., NeurIPS 2021, arXiv 2110.10368"
    balances = True
    output = "abc"

    def __init__(
        self, class_counts: Tensor, total_steps: int, *, balanced_threshold: float = 0.95
    ) -> None:
        super().__init__()
        self.balanced_threshold = check_range("balanced_threshold", balanced_threshold, 0, 1)
        check_counts(class_counts)
        self.kept_share = nn.Buffer(class_counts.min() / class_counts)
        self.total_steps = total_steps

    @property
    def heads(self) -> dict[str, int]:
        return {"abc": len(self.kept_share)}

    def draw(self, labeled: int, unlabeled: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Return a number in [0, 1) for each image; it is used if its probability is greater."""
        return {
            "abc_labeled": torch.rand(labeled, generator=generator),
            "abc_unlabeled": torch.rand(unlabeled, generator=generator),
        }

    @torch.no_grad()
    def beliefs(self, network: Network, weak: Tensor) -> dict[str, Tensor]:
        return {"abc": network.classify(weak, "abc").softmax(1)}

    def forward(self, network: Network, outputs: Outputs) -> dict[str, Tensor]:
        """Return ``"abc_labeled"`` and ``"abc_unlabeled"``, averaged over all images."""
        logits = network.classify(outputs.labeled, "abc")
        kept = outputs.draws["abc_labeled"] < self.kept_share[outputs.labels]
        labeled = kept * F.cross_entropy(logits, outputs.labels, reduction="none")

        pseudo_label = outputs.guess.others["abc"]
        confidence, guessed = pseudo_label.max(1)
        progress = (EPOCHS * outputs.guess.step // self.total_steps) / EPOCHS
        kept_share = 1 - progress * (1 - self.kept_share)
        kept = (confidence >= self.balanced_threshold) & (
            outputs.draws["abc_unlabeled"] < kept_share[guessed]
        )
        strong = network.classify(outputs.strong, "abc").log_softmax(1)
        unlabeled = kept * -(pseudo_label * strong).sum(1)
        return {"abc_labeled": labeled.mean(), "abc_unlabeled": unlabeled.mean()}
