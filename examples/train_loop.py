"""Compose FixMatch + DASO + logit adjustment in Python and train it on a long-tailed data set.

    python examples/train_loop.py

takes about a minute on a CPU. To train on your own images, name their folder in ``open_source``.
"""

import torch

from daso.data import SplitOptions, open_source, prepare_data
from daso.losses import LogitAdjusted
from daso.methods import FixMatch
from daso.nets import Network, build_encoder
from daso.refine import DASO
from daso.train import Batches, Training, TrainOptions, fit

STEPS = 1_000


def main(steps: int = STEPS) -> float:
    """Train, print the progress and return the balanced accuracy on the test images."""
    # Data: 8 x 8 pixel digits. The most frequent class has 30 labeled and 80 unlabeled images, the
    # rarest a fifteenth of that.
    split = SplitOptions(
        labeled_head=30,
        unlabeled_head=80,
        gamma_labeled=15,
        gamma_unlabeled=15,
        unlabeled_shape="consistent",
        holdout=0,
    )
    data = prepare_data(open_source("digits"), split, seed=0, device=torch.device("cpu"))
    class_counts = torch.from_numpy(data.class_counts)
    print(f"{len(data.labeled)} labeled images, by class: {class_counts.tolist()}")

    # Network: an encoder and a linear head.
    torch.manual_seed(0)
    channels, height, _ = data.shape
    encoder = build_encoder("small", channels, size=height)
    network = Network(encoder, {"class": len(class_counts)}, data.mean, data.std)

    # Method: FixMatch, whose guesses are refined by DASO and whose labeled loss is logit-adjusted.
    method = FixMatch(
        refine=DASO(len(class_counts), encoder.dim, class_counts, steps, histogram_period=20),
        supervised=LogitAdjusted(class_counts),
        threshold=0.95,
    )

    # Training: the batches hold the images in the views that the method names.
    options = TrainOptions(steps=steps, batch=32, evaluate_every=max(1, steps // 5))
    batches = Batches(data, method, options)
    for row in fit(Training(network, method, options), batches, data):
        if row["event"] == "evaluate":  # of the moving average of the network
            accuracy = row["test"]["balanced_accuracy"]
            used = row["pseudo_labels"]["share_confident"]
            print(
                f"step {row['step']:>5}: balanced accuracy {accuracy:.1%}, pseudo-labels {used:.0%}"
            )
    recall = " ".join(f"{share:.0%}" for share in row["test"]["recall"])
    print(f"recall, from the most frequent to the rarest class: {recall}")
    return float(accuracy)


if __name__ == "__main__":
    main()
