"""DARP: against the authors' code, against a plain solver, its table, tables that are hard to refine."""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from daso.refine import darp as darp_module
from daso.refine.darp import DARP
from daso.refine.guess import Guess

K, N = 4, 30
COUNTS = torch.tensor([8, 4, 2, 1])
REFERENCE = Path(__file__).parents[1] / "reference" / "darp_k5.npz"


def make(prior: Tensor | None = None, **options: Any) -> DARP:
    return DARP(K, COUNTS, N, prior, 20, **{"darp_start": 0.2, "darp_period": 2, **options})


def guess_of(probs: Tensor, indices: Tensor, step: int) -> Guess:
    return Guess(probs, torch.zeros(len(probs), 2), indices, torch.tensor(step), {"linear": probs})


def random_probs(rows: int, classes: int = K, seed: int = 0, sharpness: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return (sharpness * logits + torch.linspace(1, -1, classes)).softmax(1)


def shares_of(rows: int) -> Tensor:
    return rows * COUNTS.double() / COUNTS.sum()


def refine(guesses: Tensor, target: Tensor, keep: float, iterations: int = 10) -> Tensor:
    refined = torch.full_like(guesses, torch.nan)
    darp_module.refine(guesses, refined, target, keep, iterations)
    return refined


def take(darp: DARP, step: int, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Give DARP a random batch; return what went in and what came out."""
    probs = random_probs(len(indices), seed=step).float()
    darp.begin_step(step)
    return probs, darp(guess_of(probs, indices, step)).probs


def test_every_step_agrees_with_the_authors() -> None:
    vectors = np.load(REFERENCE)
    config = json.loads(str(vectors["config"]))
    names = ("indices", "probs", "refined")
    indices, probs, refined = (torch.from_numpy(vectors[name]) for name in names)
    darp = DARP(
        probs.shape[2],
        torch.from_numpy(vectors["unlabeled_class_counts"]),
        config["num_unlabeled"],
        None,
        config["total_steps"],
        darp_start=config["warmup_ratio"],
        darp_period=config["update_period"],
        darp_keep=config["alpha"],
        darp_iterations=config["num_iterations"],
    ).double()
    for step in range(config["total_steps"]):
        darp.begin_step(step)
        actual = darp(guess_of(probs[step].double(), indices[step], step)).probs
        # Theirs ends where a dual variable changes by less than 0.1.
        torch.testing.assert_close(actual, refined[step].double(), rtol=0, atol=1e-4)


def solve(mass: list[float], entropy: list[float], count: float) -> float:
    """Return x with sum of mass * exp(-entropy * x) = count, by bisection."""
    low, high = -1e4, 1e4
    for _ in range(200):
        middle = (low + high) / 2
        pairs = zip(mass, entropy, strict=True)
        exponents = (min(700.0, -h * middle + math.log(m)) for m, h in pairs)
        low, high = (middle, high) if sum(map(math.exp, exponents)) > count else (low, middle)
    return low


def ascended(guesses: Tensor, target: Tensor, keep: float) -> list[list[float]]:
    """Return guesses after 4 iterations of the paper's coordinate ascent, in plain Python."""
    rows = [[1e-6] * K for _ in range(N)]
    for k in range(K):
        best = sorted(range(N), key=lambda n, k=k: -guesses[n, k].item())[: int(keep * target[k])]
        scale = (target[k].item() + 1e-6) / (sum(guesses[n, k].item() for n in best) + 1e-6)
        for n in best:
            rows[n][k] += scale * guesses[n, k].item()
    rows = [[p / sum(row) for p in row] for row in rows]
    entropy = [-sum(p * math.log(p + 1e-6) for p in row) for row in rows]
    dual = [1.0] * K

    def scaled() -> list[list[float]]:
        pairs = zip(rows, entropy, strict=True)
        return [[p * math.exp(-h * x) for p, x in zip(row, dual, strict=True)] for row, h in pairs]

    for _ in range(4):
        sums = [sum(row) for row in scaled()]
        mass = [[row[k] / s for row, s in zip(rows, sums, strict=True)] for k in range(K)]
        dual = [solve(mass[k], entropy, target[k].item()) for k in range(K)]
    return [[p / sum(row) for p in row] for row in scaled()]


def test_a_refinement_is_the_papers_coordinate_ascent_image_by_image() -> None:
    # With 0.3, none of the last class is kept.
    for keep, least in ((0.3, 1), (0.8, 1), (2.0, 1), (50.0, 1), (2.0, 1e-9)):
        guesses, target = random_probs(N), shares_of(N)
        guesses[:, -1] *= least
        expected = torch.tensor(ascended(guesses, target, keep)).double()
        torch.testing.assert_close(refine(guesses, target, keep, 4), expected, rtol=1e-6, atol=1e-6)
        rounded = target.float()  # of which no digit more is lost
        assert torch.equal(refine(guesses, rounded, keep), refine(guesses, rounded.double(), keep))


def test_the_equation_of_a_class_is_solved_to_the_end() -> None:
    for sharpness in (0.5, 2.0):
        probs = random_probs(300, sharpness=sharpness)
        entropy = -(probs * probs.log()).sum(1, keepdim=True)
        for counts in ([160, 80, 40, 20], [20, 40, 80, 160], [1, 1, 1, 297]):
            log_counts = torch.tensor(counts).double().log()
            pairs = zip(probs.split(120), entropy.split(120), strict=True)
            blocks = [(p.log() - log_counts, h) for p, h in pairs]
            duals = darp_module.balance(lambda blocks=blocks: blocks)
            sums = (probs * (-entropy * duals).exp()).sum(0)
            torch.testing.assert_close(sums, torch.tensor(counts).double(), rtol=1e-6, atol=0)


def test_a_class_of_certain_images_that_shall_have_more_takes_it_from_the_uncertain_ones() -> None:
    # A Newton step from 0 goes by the certain images, so far that the others' terms are infinite.
    mass, entropy = [0.99] * 50 + [1e-6] * 10, [1e-5] * 50 + [1.0] * 10
    log_shares = torch.tensor(mass).double().log() - math.log(100)
    columns = zip(log_shares.split(50), torch.tensor(entropy).double().split(50), strict=True)
    blocks = [(share[:, None], h[:, None]) for share, h in columns]
    (x,) = darp_module.balance(lambda: blocks).tolist()
    assert x == pytest.approx(solve(mass, entropy, 100), abs=1e-4)


def test_classes_get_their_shares_and_images_keep_probability_1() -> None:
    guesses, target = random_probs(2000), shares_of(2000)
    assert ((guesses.sum(0) - target).abs() > 100).any()
    refined = refine(guesses, target, 2.0)
    torch.testing.assert_close(refined.sum(1), torch.ones(2000, dtype=torch.float64))
    torch.testing.assert_close(refined.sum(0), target, rtol=1e-3, atol=0)


CERTAIN = torch.eye(K, dtype=torch.float64)
NONE = torch.zeros(200, 1)
UNIFORM = torch.full((200, K), 1 / K, dtype=torch.float64)
HARD = {
    "certain": CERTAIN[torch.randint(K, (200,), generator=torch.Generator().manual_seed(1))],
    "all of one class": CERTAIN[torch.zeros(200, dtype=torch.int64)],
    "never the last class": torch.cat([random_probs(200, K - 1), NONE], 1),
    "nearly certain": random_probs(200, sharpness=200.0),
    "uniform": UNIFORM,
    "half uniform": torch.cat([random_probs(100), UNIFORM[:100]]),
    "one image": random_probs(1),
    "ties": random_probs(333).round(decimals=1),
}
SHARES = {
    "long-tailed": [0.6, 0.3, 0.09, 0.01],
    "reversed": [0.01, 0.09, 0.3, 0.6],
    "one class": [1.0, 0.0, 0.0, 0.0],
    "no last class": [0.4, 0.3, 0.3, 0.0],
    "tiny": [1e-30, 1e-9, 0.5, 0.5],
}


def test_a_large_table_is_refined_block_by_block_to_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for guesses, keep in product((table[::8] for table in HARD.values()), (0.5, 2.0)):
        whole = refine(guesses, shares_of(len(guesses)), keep, 3)
        for block, kept in ((7 * K, 0), (1, 0), (10 * K, 2**23)):
            with monkeypatch.context() as patch:
                patch.setattr(darp_module, "BLOCK_ELEMENTS", block)
                patch.setattr(darp_module, "CACHED_ELEMENTS", kept)
                actual = refine(guesses, shares_of(len(guesses)), keep, 3)
            torch.testing.assert_close(actual, whole, rtol=0, atol=1e-6)


def test_a_table_that_cannot_be_met_gives_distributions_all_the_same() -> None:
    for guesses in HARD.values():
        for name, shares in SHARES.items():
            refined = refine(guesses.float(), len(guesses) * torch.tensor(shares), 2.0)
            assert (refined >= 0).all(), name
            torch.testing.assert_close(refined.sum(1), torch.ones(len(guesses)), msg=name)


def test_a_table_with_the_right_shares_stays_as_it_is() -> None:
    guesses = random_probs(200)
    refined = refine(guesses, guesses.sum(0), 100.0)
    torch.testing.assert_close(refined, guesses, rtol=1e-3, atol=1e-4)


def test_permuting_the_classes_permutes_the_refined_table() -> None:
    order, guesses, target = torch.tensor([2, 0, 3, 1]), random_probs(100), shares_of(100)
    expected = refine(guesses, target, 2.0)[:, order]
    torch.testing.assert_close(refine(guesses[:, order], target[order], 2.0), expected)


def test_guesses_pass_until_the_start_and_are_then_those_of_the_last_refinement() -> None:
    # The first refinement is in step 5.
    for start, (keep, iterations) in product((4, 5), ((2.0, 10), (0.7, 10), (2.0, 1))):
        darp = make(darp_start=start / 20, darp_keep=keep, darp_iterations=iterations)
        table = torch.full((N, K), 1 / K)
        refined = table.clone()
        for step in range(12):
            indices = torch.randperm(N, generator=torch.Generator().manual_seed(step))[:12]
            probs, actual = take(darp, step, indices)
            table[indices] = probs
            if step >= start and step % 2 == 1:
                refined = refine(table, darp.target, keep, iterations)
            assert torch.equal(actual, probs if step < start else refined[indices]), step
            assert torch.equal(darp.guesses, table)
        described = darp.describe()
        assert described["darp_refined"] == refined.sum(0).tolist()
        assert described["darp_target"] == darp.target.tolist()


def test_of_an_image_that_comes_twice_the_later_guess_is_kept() -> None:
    darp = make()
    probs, _ = take(darp, 0, torch.tensor([3, 5, 3, 7, 5, 3]))
    for image, row in ((3, 5), (5, 4), (7, 3)):
        assert torch.equal(darp.guesses[image], probs[row])


def test_guesses_of_other_heads_and_parts_stay_as_they_are() -> None:
    darp = make(darp_start=0.0)
    others = {"abc": random_probs(12, seed=5)}
    guess = guess_of(random_probs(12).float(), torch.arange(12), 1)._replace(others=others)
    darp.begin_step(1)
    refined = darp(guess)
    assert not torch.equal(refined.probs, guess.probs)
    assert refined.others is guess.others
    assert refined.parts is guess.parts


def test_the_target_is_the_prior_or_else_the_labeled_distribution() -> None:
    torch.testing.assert_close(make().target, N * torch.tensor([8, 4, 2, 1]) / 15)
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4])
    torch.testing.assert_close(make(prior).target, N * prior)


def test_the_defaults_are_those_of_the_experiments_of_daso() -> None:
    darp = DARP(K, COUNTS, N, None, 250_000)
    options = (darp.start, darp.darp_period, darp.darp_keep, darp.darp_iterations)
    assert options == (100_000, 10, 2.0, 10)
