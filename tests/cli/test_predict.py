"""daso predict: every kind of input and output says the same, and priors are honoured."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from prediction import COUNT, NAMES, Predict, Rows

from daso.cli import main
from daso.cli.prediction.classify import _print_estimate
from daso.cli.prediction.inputs import Input
from daso.cli.prediction.stream import predict_inputs
from daso.data import Source
from daso.export import load
from daso.files import read_json, save_json
from daso.train.config import RunConfig


def probabilities(rows: Rows) -> np.ndarray:
    return np.array([[float(row[f"probability_{name}"]) for name in NAMES] for row in rows])


def without_paths(rows: Rows) -> list[tuple[str, ...]]:
    return sorted(tuple(row.values())[1:] for row in rows)


def test_the_order_is_that_of_the_paths(images: Path, predict: Predict) -> None:
    rows, _ = predict(images)
    assert [row["path"] for row in rows] == sorted(map(str, images.rglob("*.png")))
    assert len(rows) == COUNT


def test_all_kinds_of_input_get_the_same_answers(
    images: Path, tmp_path: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(images.rglob("*.png"))
    expected = without_paths(predict(images, "--probabilities")[0])
    names = [str(file.relative_to(images)) for file in files]
    (images / "list.csv").write_text("label,path\n" + "".join(f"?,{name}\n" for name in names))
    (images / "list.txt").write_text("".join(f"{name}\n" for name in names))
    (images / "list.jsonl").write_text("".join(json.dumps({"file": name}) + "\n" for name in names))
    pyarrow.parquet.write_table(pyarrow.table({"path": names}), images / "list.parquet")
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    np.save(tmp_path / "pixels.npy", pixels)
    np.savez(tmp_path / "pixels.npz", images=pixels[..., None], other=np.zeros(3))
    for place in (
        images / "**" / "*.png",
        images / "list.csv",
        images / "list.jsonl",
        images / "list.txt",
        images / "list.parquet",
        tmp_path / "pixels.npy",
        tmp_path / "pixels.npz",
    ):
        rows, _ = predict(place, "--probabilities")
        assert without_paths(rows) == expected, place
    assert [row["path"] for row in rows[:2]] == [f"{tmp_path / 'pixels.npz'}[{i}]" for i in (0, 1)]
    listing = io.TextIOWrapper(io.BytesIO("\n".join(map(str, files)).encode()))
    monkeypatch.setattr(sys, "stdin", listing)
    rows, _ = predict("-", "--probabilities")
    assert without_paths(rows) == expected


def test_formats_hold_the_same(images: Path, tmp_path: Path, predict: Predict) -> None:
    (images / "damaged.png").write_bytes(b"no image")
    outs = [tmp_path / f"out.{ending}" for ending in ("csv", "jsonl", "parquet")]
    for out in outs:
        options = ("--out", out, "--top", "2", "--probabilities")
        _, said = predict(images, *options, status=1)
        assert "1 of 41 images could not be read" in said
    (images / "damaged.png").unlink()
    with outs[0].open(newline="") as file:
        plain = list(csv.DictReader(file))
    lines = [json.loads(line) for line in outs[1].read_text().splitlines()]
    table = pyarrow.parquet.read_table(outs[2]).to_pylist()
    assert lines == table
    assert list(plain[0]) == list(lines[0])
    for text, values in zip(plain, lines, strict=True):
        for column, value in values.items():
            assert text[column] == (
                "" if value is None else f"{value:.6f}" if isinstance(value, float) else value
            )
    bad = [row for row in lines if row["error"] is not None]
    assert [Path(row["path"]).name for row in bad] == ["damaged.png"]
    assert {value for column, value in bad[0].items() if column not in ("path", "error")} == {None}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "finished",
        "out.csv",
        "out.jsonl",
        "out.parquet",
    ]


def test_top_and_unsure(images: Path, predict: Predict) -> None:
    plain, _ = predict(images, "--probabilities")
    middle = sorted(float(row["confidence"]) for row in plain)[COUNT // 2]
    rows, _ = predict(images, "--top", "3", "--unsure", str(middle))
    for before, row in zip(plain, rows, strict=True):
        probs = {name: float(before[f"probability_{name}"]) for name in NAMES}
        best = sorted(probs, key=lambda name: -probs[name])
        assert (row["class_1"], row["class_2"]) == (best[0], best[1])
        assert float(row["confidence_3"]) == probs[best[2]]
        assert row["confidence"] == before["confidence"]
        assert row["class"] == ("unknown" if float(row["confidence"]) < middle else best[0])
    assert 0 < sum(row["class"] == "unknown" for row in rows) < COUNT
    assert all(
        "class_1" not in predict(images, *alone)[0][0]
        for alone in (("--top", "2"), ("--unsure", "1"))
    )


def test_probabilities_are_calibrated(finished_run: Path, images: Path, predict: Predict) -> None:
    def logarithms(temperature: float) -> np.ndarray:
        calibration = read_json(finished_run / "calibration.json")
        save_json(finished_run / "calibration.json", calibration | {"temperature": temperature})
        logs = np.log(probabilities(predict(images, "--probabilities")[0]))
        return logs - logs.mean(1, keepdims=True)

    np.testing.assert_allclose(logarithms(1.0), 3 * logarithms(3.0), atol=2e-4)
    (finished_run / "calibration.json").unlink()
    assert "not calibrated" in predict(images)[1]


def test_priors(finished_run: Path, images: Path, tmp_path: Path, predict: Predict) -> None:
    counts = np.array(read_json(finished_run / "data.json")["labeled_counts"])
    plain = probabilities(predict(images, "--probabilities")[0])

    def with_prior(*arguments: str | Path) -> np.ndarray:
        return probabilities(predict(images, "--probabilities", *arguments)[0])

    def expected(shares: np.ndarray) -> np.ndarray:
        shifted = plain * shares / counts
        return shifted / shifted.sum(1, keepdims=True)

    np.testing.assert_allclose(with_prior("--prior", "labeled"), plain, atol=2e-6)
    np.testing.assert_allclose(with_prior("--prior", "uniform"), expected(np.ones(10)), atol=2e-5)
    shares = np.arange(10.0)
    save_json(tmp_path / "prior.json", dict(zip(NAMES[::-1], shares[::-1].tolist(), strict=True)))
    np.testing.assert_allclose(
        with_prior("--prior", tmp_path / "prior.json"), expected(shares), atol=2e-5
    )


def test_logit_adjusted_answers_are_those_that_the_run_counted(
    finished_run: Path, digits: Source
) -> None:
    calibration = read_json(finished_run / "calibration.json")
    save_json(finished_run / "calibration.json", calibration | {"temperature": 4.0})
    assert digits.test is not None
    model, truth = load(finished_run), digits.test.labels
    counted = read_json(finished_run / "summary.json")["last"]["logit_adjusted"]["accuracy"]
    right: dict[str, float] = {}
    for prior in ("logit-adjusted", "uniform"):
        right[prior] = float(
            (model.predict(digits.test.images, prior=prior).labels == truth).mean()
        )
    assert right["logit-adjusted"] == pytest.approx(counted)
    assert right["uniform"] != right["logit-adjusted"]


def test_an_estimate_from_few_images_is_called_uncertain(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for images, few in ((14, True), (1400, False)):
        _print_estimate(np.array([0.5, 0.5]), "a stub", ("cat", "dog"), images)
        assert ("few images to estimate a distribution from (14)" in capsys.readouterr().err) == few


def test_an_estimated_prior_is_a_fixed_point(
    finished_run: Path, images: Path, tmp_path: Path, predict: Predict
) -> None:
    (images / "damaged.png").write_bytes(b"no image")
    counts = np.array(read_json(finished_run / "data.json")["labeled_counts"])
    plain, _ = predict(images, "--probabilities", status=1)
    arguments = (images, "--prior", "estimated", "--probabilities")
    rows, said = predict(*arguments, status=1)
    assert f"{COUNT} images, estimated by expectation-maximization" in said
    assert sum(row["error"] != "" for row in rows) == 1
    before, after = (
        probabilities([row for row in answers if not row["error"]]) for answers in (plain, rows)
    )
    estimate = after.mean(
        0
    )  # the mean of the shifted probabilities is the estimate they were shifted to
    shifted = before * estimate / counts
    np.testing.assert_allclose(after, shifted / shifted.sum(1, keepdims=True), atol=2e-3)
    assert abs(estimate - before.mean(0)).max() > 0.02
    predict(*arguments, "--out", tmp_path / "out.csv", status=1)
    with (tmp_path / "out.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    (images / "damaged.png").unlink()


def test_a_balanced_method_is_not_balanced_twice(
    finished_run: Path, images: Path, predict: Predict
) -> None:
    plain, _ = predict(images)
    config = read_json(finished_run / "config.json")
    config["train"]["labeled_sampling"] = "class-balanced"
    save_json(finished_run / "config.json", config)
    trained = {"configuration": RunConfig.read(finished_run).fingerprint()}
    for vouch in (finished_run / "checkpoints").glob("step-*.json"):
        save_json(vouch, read_json(vouch) | trained)
    rows, said = predict(images, "--prior", "uniform")
    assert rows == plain
    assert "class-balanced sampling" in said


def test_a_list_may_begin_with_a_byte_order_mark(
    images: Path, tmp_path: Path, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(images.glob("*.png"))[:2]
    text = "\r\n".join(map(str, files))
    for encoding, status in (("utf-8-sig", 0), ("utf-16", 1)):
        listing = io.TextIOWrapper(io.BytesIO(text.encode(encoding)))
        monkeypatch.setattr(sys, "stdin", listing)
        rows, said = predict("-", status=status)
        assert len(rows) == (0 if status else 2)
        assert ("UTF-16" in said) == bool(status)
    (tmp_path / "prior.json").write_text(json.dumps(dict.fromkeys(NAMES, 1)), encoding="utf-8-sig")
    predict(files[0], "--prior", tmp_path / "prior.json")


def test_printed_rows_are_those_of_a_file_whatever_the_terminal_encodes(
    finished_run: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("é 🦊.png", os.fsdecode(b"\xe9.png"))
    for name in names:
        shutil.copy(sorted(images.glob("*.png"))[0], tmp_path / name)
    words = ["predict", str(finished_run), *(str(tmp_path / name) for name in names)]
    assert main([*words, "--out", str(tmp_path / "rows.csv")]) == 0
    for encoding in ("ascii", "latin-1", "utf-8"):
        printed = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding))
        assert main(words) == 0
        sys.stdout.flush()
        assert printed.getvalue() == (tmp_path / "rows.csv").read_bytes()


def test_a_place_without_images_is_answered_too(
    images: Path, tmp_path: Path, predict: Predict
) -> None:
    (tmp_path / "empty").mkdir()
    rows, _ = predict(images, tmp_path / "empty", status=1)
    assert len(rows) == COUNT + 1
    assert "no image in it" in rows[-1]["error"]


def test_an_endless_list_is_read_bit_by_bit(finished_run: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    read = []

    def endless() -> itertools.count[int]:
        for number in itertools.count():
            read.append(number)
            yield Input(str(number), pixels)

    classifier = load(finished_run, "cpu")
    chunk = next(predict_inputs(classifier, endless(), []))
    assert len(chunk) == classifier.batch
    assert len(read) <= 5 * classifier.batch


REFUSED = [
    ("{images}/*.jpg", "matches no file"),
    ("{images} --prior unifrm", "estimated"),
    ("{images} --prior {tmp}/none.json", "none.json"),
    ("{images} --prior {tmp}/short.json", "'1'"),
    ("{images} --prior {tmp}/strange.json", "'dog'"),
    ("{images} --prior {tmp}/negative.json", "at least 0"),
    ("{images} --prior labeled --logit-adjusted", "--logit-adjusted"),
    ("{images} --prior {tmp}/list.json", "an object such as"),
    ("{images} --top 11", "10 classes"),
    ("{images} --unsure 1.5", "--unsure"),
    ("{images} --resume", "--out"),
    ("{images} --out {tmp}/out.xls", ".parquet"),
    ("{tmp}/none.csv", "does not exist"),
    ("{tmp}/nopath.csv", "path"),
    ("{tmp}/many.npz", "'images'"),
    ("{tmp}/flat.npy", "(N, H, W, C)"),
    ("{tmp}/objects.npy", "cannot be read"),
    ("{tmp}/one.npy", "like one image"),
]
"""Arguments behind the model, and a key word of the error."""


def test_what_is_refused(
    finished_run: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_json(tmp_path / "short.json", {"0": 1})
    save_json(tmp_path / "strange.json", {"dog": 1})
    save_json(tmp_path / "list.json", [0.1] * 10)
    save_json(tmp_path / "negative.json", dict.fromkeys(NAMES, -1))
    (tmp_path / "nopath.csv").write_text("label\n1\n")
    np.savez(tmp_path / "many.npz", a=np.zeros(3), b=np.zeros(3))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "one.npy", np.zeros((9, 8, 3), np.uint8))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    before = sorted(tmp_path.iterdir())
    violations = []
    for line, word in REFUSED:
        status = main(
            ["predict", str(finished_run), *line.format(images=images, tmp=tmp_path).split()]
        )
        error = capsys.readouterr().err
        if status not in (1, 2) or word not in error or len(error.splitlines()) > 3:
            violations.append((line, status, error))
    assert violations == []
    assert sorted(tmp_path.iterdir()) == before


def test_a_list_is_not_replaced_by_its_answers(
    predict: Predict, images: Path, tmp_path: Path
) -> None:
    listing = tmp_path / "list.csv"
    listing.write_text(f"path,label\n{sorted(images.glob('*.png'))[0]},mine\n")
    before = listing.read_bytes()
    for place in (listing, tmp_path / "*.csv"):
        said = predict(place, "--out", listing, status=2)[1]
        assert "is what is read" in said
        assert listing.read_bytes() == before


def test_a_share_that_stands_twice_is_refused(
    predict: Predict, images: Path, tmp_path: Path
) -> None:
    image, file = sorted(images.glob("*.png"))[0], tmp_path / "prior.json"
    once = json.dumps(dict.fromkeys(NAMES, 1))
    for text in (once.replace("{", f'{{"{NAMES[0]}": 5, '), "[" * 100_000):
        file.write_text(text)
        said = predict(image, "--prior", file, status=2)[1]
        assert f"--prior {file} cannot be read" in said


def test_rows_of_a_list_that_name_nothing_are_answered_in_place(
    images: Path, tmp_path: Path, predict: Predict
) -> None:
    good = next(images.glob("*.png"))
    odd = '{"path": "\\ud800.png"}'
    lines = [json.dumps({"path": str(good)}), "{}", json.dumps({"path": "gone.png"}), odd, "[]"]
    (tmp_path / "list.jsonl").write_text("\n".join(lines) + "\n")
    rows, _ = predict(tmp_path / "list.jsonl", "--out", tmp_path / "out.jsonl", status=1)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["error"] is None for row in rows] == [True, False, False, False, False]
    assert "names no image" in rows[1]["error"]
    assert rows[1]["path"].endswith("list.jsonl, line 2")
    assert "No such file" in rows[2]["error"]


def test_arrays_that_are_not_classified_are_named(tmp_path: Path, predict: Predict) -> None:
    images = np.zeros((3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=images[:2], test_images=images, y=np.zeros(2))
    rows, said = predict(tmp_path / "x.npz")
    assert len(rows) == 2
    assert f"not read: 2 arrays, such as '{tmp_path / 'x.npz'}: test_images'" in said


def test_a_link_to_itself_hides_no_image(images: Path, predict: Predict) -> None:
    for name in ("self", "self.png"):
        (images / name).symlink_to(name)
    rows, said = predict(images, status=1)
    for name in ("self", "self.png"):
        (images / name).unlink()
    assert len(rows) == COUNT + 1
    assert [row["path"] for row in rows if row["error"]] == [str(images / "self.png")]
    assert "1 broken link, such as" in said


def test_a_link_back_to_a_folder_above_is_not_followed_for_ever(
    images: Path, predict: Predict
) -> None:
    (images / "more" / "loop").symlink_to(images)
    assert len(predict(images)[0]) == COUNT
    (images / "more" / "loop").unlink()
