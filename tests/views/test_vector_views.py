"""Views of vectors against a loop over them."""

from __future__ import annotations

import torch

from daso.views.vectors import VectorDraws, draw_vectors, view_vectors

D, N = 7, 5


def drawn(
    seed: int, *, versions: range = range(3), mask: float = 0.3, mix: float = 0.4
) -> VectorDraws:
    return draw_vectors(
        N, D, torch.Generator().manual_seed(seed), versions=versions, mask=mask, mix=mix
    )


def test_a_view_is_what_a_loop_over_vectors_and_dimensions_gives() -> None:
    torch.manual_seed(0)
    vectors, mean, std = torch.randn(2 * N, 3, D), torch.randn(D), torch.rand(D) + 0.5
    batches = [drawn(1), drawn(2)]
    view = view_vectors(vectors, batches, noise=0.5, mean=mean, std=std)
    for number, draws in enumerate(batches):
        own = vectors[number * N : (number + 1) * N]
        plain = [own[i, draws.version[i]] for i in range(N)]
        for i in range(N):
            share, partner = float(draws.share[i]), plain[int(draws.partner[i])]
            for d in range(D):
                value = (
                    (1 - share) * plain[i][d]
                    + share * partner[d]
                    + 0.5 * std[d] * draws.noise[i, d]
                )
                expected = value if draws.kept[i, d] else mean[d]
                torch.testing.assert_close(view[number * N + i, d], expected)


def test_draws_stay_in_their_ranges_and_repeat_with_the_seed() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = draw_vectors(4000, 4, generator, versions=range(1, 3), mask=0.25, mix=0.3)
    assert set(draws.version.tolist()) == {1, 2}
    assert draws.share.min() >= 0
    assert 0.29 < draws.share.max() < 0.3
    assert 0.73 < draws.kept.float().mean() < 0.77
    assert sorted(draws.partner.tolist()) == list(range(4000))
    again = drawn(3)
    for name in ("version", "noise", "kept", "partner", "share"):
        assert torch.equal(getattr(again, name), getattr(drawn(3), name))


def test_without_noise_mask_and_mixture_a_view_is_a_version() -> None:
    vectors = torch.randn(N, 3, D)
    draws = drawn(0, versions=range(2, 3), mask=0.0, mix=0.0)
    view = view_vectors(vectors, [draws], noise=0.0, mean=torch.zeros(D), std=torch.ones(D))
    assert torch.equal(view, vectors[:, 2])
