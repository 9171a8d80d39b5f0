"""CReST: which images each generation adopts, what it trains on, what CReST+ adds."""

import pytest
import torch
from torch import Tensor

from daso.compose import Recipe
from daso.data.longtail import SplitOptions
from daso.data.source import Source
from daso.data.training_data import TrainingData, prepare_data
from daso.errors import OptionError
from daso.evaluate.predict import predict_logits
from daso.nets.network import Network, build_encoder
from daso.parts import Facts
from daso.plans.crest import CReST, CReSTPlus, adopt

COUNTS = torch.tensor([4, 64, 1, 16])


@pytest.fixture(scope="module")
def data(digits: Source) -> TrainingData:
    split = SplitOptions(
        labeled_head=20, unlabeled_head=40, gamma_labeled=10, gamma_unlabeled=10, holdout=50
    )
    return prepare_data(digits, split, 0, torch.device("cpu"))


def make_network(data: TrainingData, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(build_encoder("small-4", 1, 8), {"class": 10}, data.mean, data.std)


def make_plan(data: TrainingData, **options: float) -> CReST:
    return CReST(torch.from_numpy(data.class_counts), 100, len(data.unlabeled), **options)


def random_probs(rows: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)).softmax(1)


def test_the_rarer_a_class_the_more_of_it_is_adopted() -> None:
    # By rank: 64, 16, 4, 1; mirrored: 1, 4, 16, 64.
    share = CReST(COUNTS, 100, 7, crest_power=0.5).share
    torch.testing.assert_close(share, torch.tensor([0.5, 0.125, 1.0, 0.25], dtype=torch.float64))
    assert CReST(COUNTS, 100, 7, crest_power=0.0).share.tolist() == [1.0] * 4
    torch.testing.assert_close(CReST(COUNTS, 100, 7).share[1].item(), (1 / 64) ** (1 / 3))


def test_of_each_class_the_most_confident_are_chosen() -> None:
    share = torch.tensor([0.5, 0.125, 1.0, 0.0])
    for seed in range(3):
        confidence, predicted = random_probs(200, 4, seed).max(1)
        adopted = adopt(confidence, predicted, share)
        for label in range(4):
            of_class = [n for n in range(200) if predicted[n] == label]
            of_class.sort(key=lambda n, confidence=confidence: -confidence[n].item())
            best = of_class[: int(share[label] * len(of_class))]
            assert sorted(best) == (adopted == label).nonzero()[:, 0].tolist()
        assert set(adopted.tolist()) == {-1, 0, 1, 2}


def test_classes_that_are_never_predicted_and_equal_images_are_no_trouble() -> None:
    adopted = adopt(torch.ones(5), torch.zeros(5, dtype=torch.int64), torch.tensor([0.5, 1.0, 1.0]))
    assert adopted.tolist() == [0, 0, -1, -1, -1]


def test_generations_are_equally_long_and_the_last_takes_the_rest() -> None:
    stages = CReST(COUNTS, 103, 7, generations=5).stages()
    assert [stage.steps for stage in stages] == [20, 20, 20, 20, 23]
    assert all(stage.method is None and not stage.keeps_encoder for stage in stages)


def test_the_first_generation_trains_on_the_given_labels(data: TrainingData) -> None:
    first = make_plan(data).data(0, data)
    assert torch.equal(first.labeled.labels, data.labeled.labels)
    assert torch.equal(first.labeled.images, data.labeled.images)
    assert first.class_counts.tolist() == data.class_counts.tolist()


def test_each_generation_joins_the_last_networks_choice_to_the_given_labels(
    data: TrainingData,
) -> None:
    plan, given = make_plan(data, crest_power=0.2), len(data.labeled)
    for stage in range(3):
        network = make_network(data, stage)
        plan.conclude(stage, network, data)
        probs = predict_logits(network, data.unlabeled.images).double().softmax(1)
        expected = adopt(*probs.max(1), plan.share)
        assert torch.equal(plan.adopted, expected)
        later = plan.data(stage + 1, data)
        chosen = (expected >= 0).nonzero()[:, 0]
        assert len(later.labeled) == given + len(chosen)
        assert torch.equal(later.labeled.images[:given], data.labeled.images)
        assert torch.equal(later.labeled.images[given:], data.unlabeled.images[chosen])
        assert torch.equal(later.labeled.labels[given:], expected[chosen])
        assert (
            later.class_counts.tolist()
            == torch.bincount(later.labeled.labels, minlength=10).tolist()
        )
        assert later.unlabeled is data.unlabeled
        assert plan.describe()["adopted"] == (later.class_counts - data.class_counts).tolist()
    assert len(chosen) > 0


def test_the_network_is_left_in_the_mode_it_was_in(data: TrainingData) -> None:
    network = make_network(data).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    make_plan(data).conclude(0, network, data)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_only_the_choice_is_state(data: TrainingData) -> None:
    first, second = make_plan(data), make_plan(data)
    first.conclude(0, make_network(data), data)
    assert list(first.state_dict()) == ["adopted"]
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.data(1, data).labeled.labels, second.data(1, data).labeled.labels)


def test_the_plus_lowers_the_alignments_temperature_generation_by_generation() -> None:
    plan = CReSTPlus(COUNTS, 100, 7, generations=5, align_min=0.5)
    facts = Facts(4, 8, COUNTS, COUNTS, 20, 7)
    temperatures = [plan.facts(stage, facts).align_temperature for stage in range(5)]
    assert temperatures == [1.0, 0.875, 0.75, 0.625, 0.5]
    assert CReST(COUNTS, 100, 7).facts(4, facts) is facts


def test_the_plus_brings_alignment() -> None:
    facts = Facts(4, 8, COUNTS, COUNTS, 20, 7, align_temperature=0.625)
    method = Recipe.parse("fixmatch+crest-plus").build_method(facts, {})
    assert method.refine.align_temperature == 0.625
    assert "align_memory" not in Recipe.parse("fixmatch+crest").hyperparameters()


def test_the_defaults_are_those_of_the_experiments_of_daso() -> None:
    plain, plus = CReST(COUNTS, 250_000, 7), CReSTPlus(COUNTS, 250_000, 7)
    for plan in (plain, plus):
        assert [stage.steps for stage in plan.stages()] == [50_000] * 5
        assert plan.crest_power == 1 / 3
    assert plus.align_min == 0.5


def test_values_out_of_range_are_refused_by_name() -> None:
    for plan in (CReST, CReSTPlus):
        for option, values in {
            "generations": (1, 101),
            "crest_power": (-0.1, float("inf")),
        }.items():
            for value in values:
                with pytest.raises(OptionError, match=f"{option} = {value}"):
                    plan(COUNTS, 100, 7, **{option: value})
        assert len(plan(COUNTS, 100, 1, generations=100).stages()) == 100
        with pytest.raises(OptionError, match="unlabel"):
            plan(COUNTS, 100, 0)
    for value in (-0.1, 1.5):
        with pytest.raises(OptionError, match=f"align_min = {value}"):
            CReSTPlus(COUNTS, 100, 7, align_min=value)
    assert [CReSTPlus(COUNTS, 100, 7, align_min=end).align_min for end in (0.0, 1.0)] == [0, 1]
