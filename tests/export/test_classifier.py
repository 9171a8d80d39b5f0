"""daso.load: one object that takes arrays, files and Pillow images alike, and never runs what is in a file."""

from __future__ import annotations

import dataclasses
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import daso
from daso.data.source import Source
from daso.errors import DataError, OptionError, RunError
from daso.export.classifier import Classifier
from daso.export.facts import ModelFacts
from daso.files import read_json


@pytest.fixture
def model(finished_run: Path) -> Classifier:
    return daso.load(finished_run, "cpu")


@pytest.fixture
def rgb_model(model: Classifier) -> Classifier:
    facts = dataclasses.replace(model.facts, input_shape=(3, 8, 8))
    classes = len(facts.class_names)
    return Classifier(lambda images: np.full((len(images), classes), 1 / classes), facts)


def test_a_misspelt_name_of_the_package_is_told() -> None:
    assert "load" in dir(daso)
    with pytest.raises(AttributeError, match="'lode'"):
        daso.lode  # noqa: B018


def test_every_kind_of_image_gets_the_same_answer(
    model: Classifier, digits: Source, tmp_path: Path
) -> None:
    pixels = digits.train.images[:6, 0]
    pictures = [Image.fromarray(one) for one in pixels]
    files = [tmp_path / f"{number}.png" for number in range(len(pictures))]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file)
    expected = model.predict(pixels)
    assert expected.probabilities.shape == (6, 10)
    np.testing.assert_allclose(expected.probabilities.sum(1), 1)
    for images in (
        pixels[..., None],
        digits.train.images[:6],
        pixels / np.float32(255),
        pictures,
        files,
        list(map(str, files)),
        [file.read_bytes() for file in files],
        [one.convert("RGB") for one in pictures],
        [files[0], pictures[1], *pixels[2:4], np.stack([pixels[4]] * 3, 2), str(files[5])],
    ):
        np.testing.assert_allclose(
            model.predict(images).probabilities, expected.probabilities, atol=1e-6
        )
    one = model.predict(str(files[2]))
    assert one.classes == expected.classes[2:3]
    assert one.confidences == pytest.approx(expected.probabilities[2:3].max(1))
    assert len(model.predict([])) == 0


def test_an_array_of_one_color_image_is_not_taken_for_gray_ones(
    model: Classifier, rgb_model: Classifier
) -> None:
    for one, shapes in (
        (model, ((20, 30, 3), (8, 8, 4), (20, 30, 1))),
        (rgb_model, ((20, 30, 3), (8, 8, 3), (3, 8, 8), (3, 20, 30))),
    ):
        for shape in shapes:
            with pytest.raises(DataError, match=r"one image.*image\[None\]"):
                one.predict(np.zeros(shape, np.uint8))
        assert len(one.predict(np.zeros((1, 20, 30, 3), np.uint8))) == 1
        assert len(one.predict(np.zeros((5, 20, 30), np.uint8))) == 5
    assert len(model.predict(np.zeros((3, 8, 8), np.uint8))) == 3


def test_other_sizes_are_cut_and_resized_as_files_are(model: Classifier, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wide = random.integers(0, 256, (3, 20, 31, 3), dtype=np.uint8)
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for pixels, file in zip(wide, files, strict=True):
        Image.fromarray(pixels).save(file)
    np.testing.assert_allclose(
        model.predict(wide).probabilities, model.predict(files).probabilities, atol=1e-9
    )
    left = Image.fromarray(wide[0]).crop((5, 0, 25, 20)).resize((8, 8), Image.Resampling.BILINEAR)
    assert model.predict(left.convert("L")).probabilities.shape == (1, 10)


def test_a_given_image_is_left_as_it_was(model: Classifier) -> None:
    turned = Image.new("RGB", (9, 5))
    turned.getexif()[0x0112] = 6
    model.predict(turned)
    assert turned.size == (9, 5)


def test_priors(model: Classifier, digits: Source) -> None:
    images = digits.train.images[:20]
    plain = model.predict(images).probabilities
    counts = np.array(model.facts.labeled_counts)
    shares = dict(zip(model.class_names, range(1, 11), strict=True))
    shifted = plain * np.arange(1, 11) / counts
    expected = shifted / shifted.sum(1, keepdims=True)
    for prior in (shares, list(range(1, 11)), np.arange(1, 11) / 55):
        np.testing.assert_allclose(model.predict(images, prior=prior).probabilities, expected)
    for wrong in ("uniforn", [1, 2], {"0": 1}, [np.nan] * 10, [0] * 10, ["a"] * 10):
        with pytest.raises(OptionError):
            model.predict(images, prior=wrong)


def test_a_classifier_that_training_has_balanced_is_not_balanced_again() -> None:
    answers = np.array([[0.8, 0.15, 0.05], [0.15, 0.8, 0.05], [0.5, 0.4, 0.1]])
    images = np.arange(3, dtype=np.float32)[:, None]
    by_labels = answers * [10, 5, 1]
    for balanced_by, uniform, labeled in (
        ((), answers / [10, 5, 1], answers),
        (("la",), answers, by_labels),
    ):
        facts = ModelFacts(("a", "b", "rare"), (10, 5, 1), (1,), balanced_by=balanced_by)
        model = Classifier(lambda x: answers[x[:, 0].astype(int)], facts)
        for prior, expected in (("uniform", uniform), ("labeled", labeled)):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                actual = model.predict(images, prior=prior).probabilities
            assert ["balanced" in str(one.message) for one in told] == [True] * bool(
                balanced_by and prior == "uniform"
            )
            np.testing.assert_allclose(actual, expected / expected.sum(1, keepdims=True))


def test_a_class_that_the_network_hardly_knows_is_not_lost_by_the_estimate() -> None:
    """A third of the images are of a class that gets a probability of 0.1 at most: the hold-out knows that."""
    random = np.random.default_rng(0)
    classes = random.choice(3, 3000, p=[0.3, 0.3, 0.4])
    answers = np.array([[0.8, 0.15, 0.05], [0.15, 0.8, 0.05], [0.5, 0.4, 0.1]])
    confusion = answers.T.tolist()
    facts = ModelFacts(
        ("a", "b", "rare"), (10, 10, 1), (1,), method="supervised", confusion=confusion
    )
    estimate, how = facts.estimate_distribution(lambda: np.array_split(answers[classes], 4))
    assert "confusion" in how
    np.testing.assert_allclose(estimate, [0.3, 0.3, 0.4], atol=0.03)
    alone = dataclasses.replace(facts, confusion=None)
    by_words, how = alone.estimate_distribution(lambda: [answers[classes]])
    assert how == "expectation-maximization"
    assert abs(by_words - [0.3, 0.3, 0.4]).sum() > 0.3
    model = Classifier(lambda x: answers[x[:, 0].astype(int)], facts)
    shifted = model.predict(classes[:, None].astype(np.float32), prior="estimated").probabilities
    expected = answers[classes] * estimate / facts.prior
    np.testing.assert_allclose(shifted, expected / expected.sum(1, keepdims=True), atol=1e-9)


def test_an_estimate_from_few_images_or_that_loses_a_class_is_doubted_in_python_too() -> None:
    answers = np.array([[0.98, 0.01, 0.01], [0.01, 0.98, 0.01]])
    model = Classifier(
        lambda x: answers[x[:, 0].astype(int)],
        ModelFacts(("a", "b", "rare"), (10, 10, 1), (1,), method="supervised"),
    )
    for count, words in ((10, ["few images", "no image of rare"]), (5000, ["no image of rare"])):
        images = np.arange(count, dtype=np.float32)[:, None] % 2
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model.predict(images, prior="estimated")
            model.predict(images)
        assert [one.category for one in told] == [UserWarning] * len(words)
        assert all(word in str(one.message) for word, one in zip(words, told, strict=True))
        assert {Path(one.filename).name for one in told} == {"test_classifier.py"}


def test_what_is_no_image(model: Classifier) -> None:
    cases: list[tuple[object, str]] = [
        ("gone.png", "gone.png: No such file"),
        ([b"no image"], "input 0: not a readable image"),
        ([np.zeros((8, 8), np.uint8), 3], "input 1: must be"),
        ([np.zeros((8, 8), np.int64)], "input 0: .*uint8"),
        (np.zeros((2, 8, 8, 5), np.uint8), "channels"),
        ([np.zeros(8, np.uint8)], "input 0: an image must be"),
    ]
    for images, message in cases:
        with pytest.raises(DataError, match=message):
            model.predict(images)


def linear_model() -> Classifier:
    facts = ModelFacts(("a", "b"), (3, 1), (4,), method="supervised")
    return Classifier(lambda x: np.stack([x[:, 0], 1 - x[:, 0]], 1), facts)


def test_a_model_of_vectors_takes_vectors() -> None:
    vectors = np.random.default_rng(0).random((5000, 4))
    answers = linear_model().predict(vectors)
    np.testing.assert_allclose(answers.probabilities[:, 0], vectors[:, 0].astype(np.float32))
    assert answers.classes[:3] == ["a" if v > 0.5 else "b" for v in vectors[:3, 0]]
    for wrong, message in (
        (np.zeros((2, 5)), "vectors of 4"),
        ([[0, 1, np.nan, 1]], "NaN"),
        ([["a"] * 4], "not a vector"),
        (["x.png"], "not a vector"),
    ):
        with pytest.raises(DataError, match=message):
            linear_model().predict(wrong)


def test_a_model_that_is_not_square_takes_its_own_shape_only() -> None:
    facts = ModelFacts(("a", "b"), (3, 1), (1, 4, 6))
    model = Classifier(lambda x: np.full((len(x), 2), 0.5), facts)
    assert len(model.predict([np.zeros((4, 6), np.uint8)])) == 1
    with pytest.raises(DataError, match="takes 6 x 4 only"):
        model.predict([np.zeros((6, 4), np.uint8)])


class Payload:
    """What a hostile file would hold."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path(self.where),))

    def __init__(self, where: Path) -> None:
        self.where = str(where)


def test_loading_runs_no_code(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    content = pickle.dumps(Payload(ran))
    for suffix in ("pt2", "pt", "onnx", "safetensors", "bin"):
        path = tmp_path / f"model.{suffix}"
        path.write_bytes(content)
        with pytest.raises((OptionError, RunError), match=path.name):
            daso.load(path)
        assert not ran.exists()
    pickle.loads(content)  # the trap works
    assert ran.exists()


def test_what_is_no_model(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        daso.load(tmp_path / "gone")
    with pytest.raises(RunError, match="not a run folder"):
        daso.load(tmp_path)
    checkpoint = max((finished_run / "checkpoints").glob("*.safetensors"))
    with pytest.raises(RunError, match="not exported by daso"):
        daso.load(checkpoint)
    with pytest.raises(OptionError, match="device"):
        daso.load(finished_run, "nonsense")


def test_calibration_of_another_checkpoint_is_not_used(finished_run: Path) -> None:
    calibration = read_json(finished_run / "calibration.json")
    for path in sorted((finished_run / "checkpoints").glob(f"step-{calibration['step']:09d}.*")):
        path.unlink()
    said: list[str] = []
    model = daso.load(finished_run, "cpu", warn=said.append)
    assert model.facts.temperature == 1
    assert f"of step {calibration['step']}" in said[-1]


def test_a_run_calibrates_itself(finished_run: Path) -> None:
    calibration = read_json(finished_run / "calibration.json")
    assert calibration["images"] == 50
    assert calibration["note"] is None
    assert calibration["loss_after"] <= calibration["loss_before"]
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["event"] == "evaluate"][-1]
    assert calibration["loss_before"] == pytest.approx(last["holdout"]["loss"])
    assert calibration["error_before"] == pytest.approx(last["holdout"]["calibration_error"])
    model = daso.load(finished_run, "cpu")
    assert model.facts.temperature == calibration["temperature"] != 1


def test_a_folder_is_no_image(model: Classifier, tmp_path: Path) -> None:
    for images in (tmp_path, str(tmp_path), [tmp_path]):
        with pytest.raises(DataError, match=r"rglob.*daso predict"):
            model.predict(images)


def test_names_in_columns_arrays_and_generators(model: Classifier, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    files = [str(tmp_path / f"{number}.png") for number in range(3)]
    for number, file in enumerate(files):
        Image.new("L", (8, 8), 80 * number).save(file)
    expected = model.predict(files).probabilities
    for images in (pandas.Series(files), np.array(files), np.array(files, object), iter(files)):
        assert np.array_equal(model.predict(images).probabilities, expected)
    with pytest.raises(DataError, match="images must be"):
        model.predict(pandas.DataFrame({"path": files}))


def test_a_table_of_vectors_is_not_turned_on_its_side() -> None:
    pandas = pytest.importorskip("pandas")
    model = linear_model()
    rows = np.eye(4, dtype=np.float32)[[0, 0, 1, 0]]
    expected = model.predict(rows).probabilities
    for table in (pandas.DataFrame(rows), pandas.DataFrame(rows.astype(int))):
        assert np.array_equal(model.predict(table).probabilities, expected)
