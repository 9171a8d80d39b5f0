"""The estimate of the unlabeled distribution: its least squares, its network, what it needs."""

import dataclasses
import itertools

import pytest
import torch
from small_learners import Float64Network
from torch import Tensor

from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.data.training_data import Pool, TrainingData, prepare_data
from daso.errors import OptionError
from daso.evaluate.predict import predict_logits
from daso.nets.network import Network, build_encoder
from daso.parts import Facts
from daso.plans.estimate import EstimatePrior, nearest_distribution

SPLIT = SplitOptions(
    labeled_head=20, unlabeled_head=40, gamma_labeled=10, gamma_unlabeled=10, holdout=50
)


@pytest.fixture(scope="module")
def data(digits: Source) -> TrainingData:
    return prepare_data(digits, SPLIT, 0, torch.device("cpu"))


def random_confusion(classes: int, seed: int, sharpness: float = 3.0) -> Tensor:
    logits = torch.randn(
        classes, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return (logits + sharpness * torch.eye(classes)).softmax(0)


def best_by_trying_all_supports(matrix: Tensor, target: Tensor) -> Tensor:
    """Return the best distribution: of all sets of classes the best solution that is one."""
    size, best, least = len(target), None, float("inf")
    for count in range(1, size + 1):
        for support in map(list, itertools.combinations(range(size), count)):
            # One share is what the others leave.
            base, rest = matrix[:, support[0]], matrix[:, support[1:]] - matrix[:, support[:1]]
            others = (
                torch.linalg.lstsq(rest, (target - base)[:, None]).solution[:, 0]
                if count > 1
                else torch.zeros(0)
            )
            share = torch.zeros(size, dtype=torch.float64)
            share[support] = torch.cat([1 - others.sum()[None], others]).double()
            gap = (matrix @ share - target).norm().item()
            if (share >= 0).all() and gap < least - 1e-12:
                best, least = share, gap
    return best


def test_an_exact_distribution_is_found() -> None:
    for classes in (2, 10, 100):
        matrix = random_confusion(classes, 0, sharpness=6.0)
        expected = torch.logspace(0, -2, classes, dtype=torch.float64)
        expected /= expected.sum()
        actual = nearest_distribution(matrix, matrix @ expected)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-7)


def test_where_the_inverse_is_negative_the_nearest_distribution_is_found() -> None:
    negative = 0
    for seed in range(20):
        matrix, generator = random_confusion(5, seed, 1.0), torch.Generator().manual_seed(seed)
        target = torch.rand(5, generator=generator, dtype=torch.float64).square()
        target /= target.sum()
        expected = best_by_trying_all_supports(matrix, target)
        actual = nearest_distribution(matrix, target)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-7)
        negative += bool((torch.linalg.solve(matrix, target) < 0).any())
    assert negative > 10


def test_a_network_that_tells_nothing_apart_still_gives_a_distribution() -> None:
    for matrix in (torch.full((4, 4), 0.25), torch.eye(4)[[0, 0, 0, 0]].t(), torch.eye(4)):
        for target in ([1.0, 0, 0, 0], [0.25] * 4, [0, 0, 0.5, 0.5]):
            share = nearest_distribution(matrix.double(), torch.tensor(target).double())
            assert (share >= 0).all()
            torch.testing.assert_close(share.sum().item(), 1.0)


def test_the_estimate_comes_from_the_holdout_and_the_guesses(data: TrainingData) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("small-4", 1, 8)
    network = Float64Network(encoder, {"class": 10}, data.mean, data.std).double()
    with torch.no_grad():
        network.heads["class"].weight.mul_(20)  # else its guesses would hardly differ
    # Of half of the classes a third as many images are held out.
    kept = (data.holdout.labels < 5) | (torch.arange(len(data.holdout)) % 3 == 0)
    holdout = Pool(data.holdout.images[kept], data.holdout.labels[kept])
    assert len(holdout.labels.bincount(minlength=10).unique()) > 1
    data = dataclasses.replace(data, holdout=holdout)
    plan = EstimatePrior(10, 100).double()
    plan.data(0, data)  # every class is held out
    plan.conclude(0, network, data)
    probs = predict_logits(network, data.holdout.images).softmax(1)
    columns = [probs[data.holdout.labels == label].mean(0) for label in range(10)]
    confusion = torch.stack(columns, dim=1)
    mean = predict_logits(network, data.unlabeled.images).softmax(1).mean(0)
    torch.testing.assert_close(plan.prior, nearest_distribution(confusion, mean))
    described = plan.describe()
    assert described["unlabeled_prior"] == plan.prior.tolist()
    condition = torch.linalg.cond(confusion).item()
    assert described["confusion_condition"] == pytest.approx([condition])


def test_a_perfect_network_finds_the_true_distribution(data: TrainingData) -> None:
    class Oracle(Network):
        """Whose features are the truth, written into the images' first pixels."""

        def forward(self, images: Tensor) -> Tensor:
            return 50 * torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), self.dim).float()

        def classify(self, features: Tensor, head: str = "class") -> Tensor:
            return features

    def told(pool: Pool) -> Pool:
        images = pool.images.clone()
        images[:, 0, 0, 0] = pool.labels
        return Pool(images, pool.labels)

    oracle = Oracle(build_encoder("small-4", 1, 8), {"class": 10}, data.mean, data.std)
    oracle.dim = 10
    plan = EstimatePrior(10, 100)
    plan.conclude(
        0,
        oracle,
        dataclasses.replace(data, holdout=told(data.holdout), unlabeled=told(data.unlabeled)),
    )
    truth = data.unlabeled.labels.bincount(minlength=10) / len(data.unlabeled)
    torch.testing.assert_close(plan.prior, truth)
    assert plan.condition.item() == pytest.approx(1)


def test_the_estimate_is_a_fact_of_the_methods_training_only() -> None:
    plan, counts = EstimatePrior(3, 100), torch.ones(3)
    facts = Facts(3, 8, counts, counts, 100, 7)
    plan.prior.copy_(torch.tensor([0.5, 0.3, 0.2]))
    assert plan.facts(0, facts).unlabeled_prior is None
    assert EstimatePrior(4, 100).describe()["unlabeled_prior"] == [0.25] * 4
    assert plan.facts(1, facts).unlabeled_prior.tolist() == plan.prior.tolist()


def test_the_method_trains_at_full_length_after_the_estimate() -> None:
    first, second = EstimatePrior(3, 100).stages()
    assert (first.method, first.steps) == ("supervised", 20)
    assert (second.method, second.steps) == (None, 100)
    assert EstimatePrior(3, 100, estimate_steps=7).stages()[0].steps == 7
    assert EstimatePrior(3, 2).stages()[0].steps == 1


def test_the_state_is_the_estimate() -> None:
    first, second = EstimatePrior(3, 100), EstimatePrior(3, 100)
    first.prior.copy_(torch.tensor([0.5, 0.3, 0.2]))
    second.load_state_dict(first.state_dict())
    assert second.prior.tolist() == first.prior.tolist()


def test_data_that_is_not_enough_is_refused_before_the_training(data: TrainingData) -> None:
    plan = EstimatePrior(10, 100)
    assert plan.data(0, data) is data
    with pytest.raises(OptionError, match=r"10 classes.*--holdout"):
        plan.data(0, dataclasses.replace(data, holdout=None))
    kept = (data.holdout.labels != 3) & (data.holdout.labels != 7)
    lacking = Pool(data.holdout.images[kept], data.holdout.labels[kept])
    with pytest.raises(OptionError, match=r"2 classes.*3, 7\); set some aside"):
        plan.data(0, dataclasses.replace(data, holdout=lacking))
    own = dataclasses.replace(data.split, holdout=data.split.holdout[:0])
    with pytest.raises(OptionError, match=r"3, 7\); add validation images"):
        plan.data(0, dataclasses.replace(data, holdout=lacking, split=own))
    with pytest.raises(OptionError, match="unlabel"):
        plan.data(0, dataclasses.replace(data, unlabeled=None))


def test_steps_out_of_range_are_refused() -> None:
    with pytest.raises(OptionError, match="estimate_steps = 0"):
        EstimatePrior(3, 100, estimate_steps=0)
    assert EstimatePrior(3, 100, estimate_steps=1).stages()[0].steps == 1
