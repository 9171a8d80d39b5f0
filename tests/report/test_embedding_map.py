"""The map of the embedding as a picture: what stands where, in which color and shape."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from matplotlib.cbook import is_math_text
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from safetensors import safe_open

from daso.errors import RunError
from daso.files import read_json
from daso.report import figures
from daso.report.figures.feature_map import COLORS, MOST_SHAPES, OTHERS, SIZES, class_styles

FILE = "beliefs.safetensors"

pytestmark = pytest.mark.usefixtures("without_warnings")


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    with safe_open(folder / FILE, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def drawn(figure: Figure, kind: str) -> Counter[str]:
    """Return how many marks of a kind there are of each color."""
    found: Counter[str] = Counter()
    for one in figure.axes[0].collections:
        if one.get_sizes()[0] == SIZES[kind] and len(one.get_offsets()):
            found[to_hex(one.get_facecolor()[0]).upper()] += len(one.get_offsets())
    return found


def colors_of(folder: Path) -> list[str]:
    counts = np.array(read_json(folder / "data.json")["labeled_counts"], dtype=float)
    order = list(np.argsort(-counts, kind="stable"))
    return [to_hex(color).upper() for color, _ in class_styles(order, range(len(counts)), counts)]


def expected(folder: Path, classes: np.ndarray) -> Counter[str]:
    colors = colors_of(folder)
    return Counter(colors[k] for k in classes if k >= 0)


def test_every_image_and_prototype_stands_there_in_the_color_of_its_class(
    finished_run: Path,
) -> None:
    arrays = arrays_of(finished_run)
    rows = arrays["map.place"]
    figure = figures.embedding_map(finished_run)
    assert drawn(figure, "unlabeled") == expected(finished_run, arrays["pool.final"][rows])
    assert drawn(figure, "labeled") == expected(finished_run, arrays["map.label"])
    assert drawn(figure, "prototype") == expected(finished_run, np.arange(10))
    truth = figures.embedding_map(finished_run, by="truth")
    assert drawn(truth, "unlabeled") == expected(finished_run, arrays["pool.truth"][rows])
    assert {text.get_text() for text in figure.axes[0].texts} == {str(k) for k in range(10)}


def test_the_legend_names_each_class_with_its_labeled_images(finished_run: Path) -> None:
    counts = read_json(finished_run / "data.json")["labeled_counts"]
    legend = figures.embedding_map(finished_run).axes[0].get_legend()
    assert legend is not None
    said = [text.get_text() for text in legend.get_texts()]
    assert said[:3] == ["unlabeled image", "labeled image", "prototype of a class"]
    assert sorted(said[3:]) == [f"{k} ({counts[k]})" for k in range(10)]


def test_classes_can_be_singled_out(finished_run: Path) -> None:
    arrays = arrays_of(finished_run)
    final = arrays["pool.final"][arrays["map.place"]]
    figure = figures.embedding_map(finished_run, classes=["3", "0"])
    found = drawn(figure, "unlabeled")
    assert (found[COLORS[0]], found[COLORS[1]]) == tuple((final == k).sum() for k in (0, 3))
    assert found[OTHERS] == len(final) - found[COLORS[0]] - found[COLORS[1]]
    assert {text.get_text() for text in figure.axes[0].texts} == {"0", "3"}
    with pytest.raises(RunError, match="no class 'three'"):
        figures.embedding_map(finished_run, classes=["three"])


def test_classes_differ_in_color_or_shape_and_neighbors_in_both() -> None:
    for count in (2, 10, MOST_SHAPES):
        counts = np.arange(count, 0, -1, dtype=float)
        styles = class_styles(range(count), range(count), counts)
        assert len(set(styles)) == count
        for (color, shape), (other_color, other_shape) in itertools.pairwise(styles):
            assert color != other_color
            assert shape != other_shape


def test_more_classes_are_colored_by_their_number_of_labeled_images(finished_run: Path) -> None:
    count = MOST_SHAPES + 8
    data = read_json(finished_run / "data.json")
    data |= {
        "class_names": [f"class {k}" for k in range(count)],
        "labeled_counts": list(range(count, 0, -1)),
    }
    (finished_run / "data.json").write_text(json.dumps(data))
    arrays = arrays_of(finished_run)
    random = np.random.default_rng(0)
    arrays["map.prototypes"] = random.normal(size=(count, arrays["map.features"].shape[1])).astype(
        np.float16
    )
    (finished_run / FILE).write_bytes(safetensors.numpy.save(arrays, {"beliefs": "{}"}))
    figure = figures.embedding_map(finished_run)
    assert len(drawn(figure, "prototype")) > 40
    assert figure.axes[1].get_ylabel() == "labeled images of the class"
    assert not list(figure.axes[0].texts)
    one = figures.embedding_map(finished_run, classes=["class 49"])
    assert [text.get_text() for text in one.axes[0].texts] == ["class 49"]


def test_names_are_drawn_as_they_are(finished_run: Path) -> None:
    data = read_json(finished_run / "data.json")
    names = ["$x^2$", "a_b", "50%", "$", "\\frac", "ß" * 40, *"abcd"]
    (finished_run / "data.json").write_text(json.dumps(data | {"class_names": names}))
    figure = figures.embedding_map(finished_run)
    figure.savefig(finished_run / "map.pdf")
    drawn = [text.get_text() for text in figure.axes[0].texts if isinstance(text, Text)]
    assert not any(map(is_math_text, drawn))
    assert any(text.get_text().endswith("ß…") for text in figure.axes[0].texts)


def test_what_is_not_there_is_an_error_that_says_so(finished_run: Path) -> None:
    arrays = arrays_of(finished_run)
    arrays["pool.truth"][:] = -1
    (finished_run / FILE).write_bytes(safetensors.numpy.save(arrays, {"beliefs": "{}"}))
    with pytest.raises(RunError, match="no truth"):
        figures.embedding_map(finished_run, by="truth")
    for name, value in (
        ("map.place", arrays["map.place"][:7]),
        ("map.place", arrays["map.place"] + 30_000),
        ("pool.final", arrays["pool.final"] + 50),
        ("map.label", arrays["map.label"] * 0 - 2),
    ):
        changed = safetensors.numpy.save({**arrays, name: value}, {"beliefs": "{}"})
        (finished_run / FILE).write_bytes(changed)
        with pytest.raises(RunError, match="cannot be read"):
            figures.embedding_map(finished_run)
    (finished_run / FILE).write_bytes(changed[:5000])
    with pytest.raises(RunError, match="cannot be read"):
        figures.embedding_map(finished_run)
    (finished_run / FILE).unlink()
    with pytest.raises(RunError, match="not written yet"):
        figures.embedding_map(finished_run)
