"""Near copies: what the hash stands, and that the search finds the pairs that comparing all finds."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from made_files import encoded
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from daso.data.check.near_copies import NEAR_BITS, near_pairs, thumbnail

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Return 24 parts of two photographs, none of which overlaps another."""
    cuts = []
    for pixels in load_sample_images().images:
        image = Image.fromarray(pixels)
        cuts += [
            image.crop((x, y, x + 150, y + 130))
            for x in range(0, 600, 160)
            for y in range(0, 400, 135)
        ]
    return cuts


def looks(images: list[Image.Image]) -> tuple[npt.NDArray[np.uint64], Pixels]:
    found = [thumbnail(np.asarray(image.convert("RGB")).transpose(2, 0, 1)) for image in images]
    return np.array([value for _, value in found], dtype=np.uint64), np.stack(
        [small for small, _ in found]
    )


def saved(image: Image.Image, kind: str, **options: object) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, kind, **options)))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: saved(image, "JPEG", quality=60),
        lambda image: saved(image, "WEBP", quality=70),
        lambda image: image.resize((image.width // 2, image.height // 2)),
        lambda image: ImageEnhance.Brightness(image).enhance(1.08),
        lambda image: ImageEnhance.Contrast(image).enhance(0.9),
    ],
    ids=["jpeg", "webp", "half", "brighter", "flatter"],
)
def test_a_changed_copy_is_found_and_nothing_else(
    change: object, photographs: list[Image.Image]
) -> None:
    count = len(photographs)
    changed = [change(image) for image in photographs]  # type: ignore[operator]
    pairs = near_pairs(*looks(photographs + changed)).tolist()
    expected = [[i, i + count] for i in range(count)]
    assert all(pair in expected for pair in pairs)
    assert len(pairs) >= 0.9 * count


def test_no_near_copies_among_different_images(photographs: list[Image.Image]) -> None:
    turned = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in photographs]
    assert len(near_pairs(*looks(photographs + turned))) == 0


def test_the_search_finds_the_pairs_of_a_comparison_of_all() -> None:
    random = np.random.default_rng(0)
    centers = random.integers(0, 2**63, 150, dtype=np.uint64)
    copies = []
    for center in centers:
        copies.append(center)
        for _ in range(3):
            flips = random.choice(63, size=random.integers(0, 10), replace=False)
            copies.append(center ^ np.uint64(sum(1 << int(bit) for bit in flips)))
    hashes = np.array(copies, dtype=np.uint64)[random.permutation(len(copies))]
    same = np.tile(random.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8), (len(hashes), 1, 1, 1))
    values = hashes.tolist()
    expected = [
        [i, j]
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (values[i] ^ values[j]).bit_count() <= NEAR_BITS
    ]
    assert len(expected) > 150
    assert near_pairs(hashes, same).tolist() == expected


def test_thumbnails_decide_by_their_correlation() -> None:
    random = np.random.default_rng(0)
    base = random.integers(40, 216, (16, 16, 3))
    noisy = [base + random.normal(0, sigma, base.shape) for sigma in np.linspace(0, 15, 60)]
    thumbnails = np.stack([base, *noisy]).round().astype(np.uint8)
    flat = thumbnails.reshape(len(thumbnails), -1)
    expected = np.argwhere(np.triu(np.corrcoef(flat) >= 0.99, 1))
    assert 100 < len(expected) < 1800
    assert (
        near_pairs(np.zeros(len(flat), dtype=np.uint64), thumbnails).tolist() == expected.tolist()
    )


def test_images_without_contrast_are_near_to_none() -> None:
    flat = [Image.new("RGB", (20, 20), (value, value, value)) for value in range(0, 250, 25)]
    assert near_pairs(*looks(flat)).shape == (0, 2)
    assert near_pairs(*looks(flat[:1])).shape == (0, 2)


def test_many_alike_images_take_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    count_bits = np.bitwise_count

    def counting(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
        nonlocal compared
        compared += len(values)
        return np.full_like(count_bits(values), 63)

    monkeypatch.setattr(np, "bitwise_count", counting)
    count = 5000
    hashes = np.zeros(count, dtype=np.uint64)
    near_pairs(hashes, np.zeros((count, 16, 16, 3), dtype=np.uint8))
    assert compared <= 28 * 64 * count  # of 12,497,500 pairs, each would be compared 28 times
