"""What a finished run says it believes: against the model of its checkpoint, for every learner and kind of data."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import daso.train.beliefs.collect
from daso.data.images.pool import Pool
from daso.data.open import open_source
from daso.data.source import Source
from daso.data.training_data import TrainingData
from daso.train.beliefs.collect import collect_beliefs
from daso.train.beliefs.thumbnails import encode_thumbnail, pack_thumbnails
from daso.train.model import load_model
from daso.train.prepare import Prepared, prepare
from daso.train.run import resume_run, train_run
from tests.conftest import MakeConfig, MakeFolder

METHODS = (
    "supervised",
    "pseudolabel",
    "meanteacher",
    "mixmatch",
    "remixmatch+daso",
    "fixmatch+abc+daso",
    "fixmatch+darp",
    "fixmatch+align",
    "boss",
    "usadtm",
    "supervised+crt",
)


def read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with safe_open(folder / "beliefs.safetensors", framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, json.loads(file.metadata()["beliefs"])


@pytest.fixture(scope="module")
def prepared_run(tiny_config: MakeConfig, digits: Source) -> Prepared:
    options = {"threshold": 0.2, "warmup_steps": 4, "histogram_period": 4}
    return prepare(tiny_config("fixmatch+daso", method_options=options), digits)


def unlabeled_images(data: TrainingData) -> torch.Tensor:
    assert data.unlabeled is not None
    return data.unlabeled.images


def test_beliefs_are_those_of_the_model(finished_run: Path, prepared_run: Prepared) -> None:
    arrays, about = read(finished_run)
    data = prepared_run.data
    model = load_model(finished_run, torch.device("cpu"), pytest.fail)
    images = unlabeled_images(data)
    assert arrays["pool.index"].tolist() == list(range(len(images)))
    with torch.no_grad():
        features = model.network(images)
        linear = model.network.classify(features).softmax(1).numpy()
        labeled = model.network(data.labeled.images)
    state = next((finished_run / "checkpoints").glob("*20.safetensors"))
    with safe_open(state, framework="pt") as file:
        prototypes = file.get_tensor("method.refine.queue.prototypes")
        share = file.get_tensor("method.refine.distribution").numpy()
    temperature = prepared_run.config.method_options["dist_temperature"]
    v = (share / share.max()) ** (1 / float(str(temperature)))
    assert about["blend_weight"] == pytest.approx(v.tolist(), abs=1e-6)
    assert about["prototypes"] == "method"
    units = torch.nn.functional.normalize(labeled, dim=1)
    for i in range(0, len(images), 7):
        cosine = torch.nn.functional.cosine_similarity(features[i], prototypes, eps=1e-8)
        q = (cosine / 0.05).softmax(0).numpy()
        p = linear[i]
        blended = (1 - v[p.argmax()]) * p + v[p.argmax()] * q
        assert arrays["pool.linear"][i, 0] == p.argmax()
        assert arrays["pool.semantic"][i, 0] == q.argmax()
        assert arrays["pool.linear_probs"][i] == pytest.approx(np.sort(p)[::-1][:2], abs=2e-3)
        assert arrays["pool.semantic_probs"][i] == pytest.approx(np.sort(q)[::-1][:2], abs=2e-3)
        assert arrays["pool.final"][i] == blended.argmax()
        assert arrays["pool.confidence"][i] == pytest.approx(blended.max(), abs=2e-3)
    for place, row in enumerate(arrays["shown.place"]):
        cosines = units @ torch.nn.functional.normalize(features[row], dim=0)
        near = arrays["shown.near"][place]
        assert cosines[near].numpy() == pytest.approx(np.sort(cosines.numpy())[::-1][:3], abs=1e-5)
        assert arrays["shown.near_label"][place].tolist() == data.labeled.labels[near].tolist()


def test_truth_places_and_answers(
    finished_run: Path, prepared_run: Prepared, digits: Source
) -> None:
    arrays, about = read(finished_run)
    data = prepared_run.data
    assert data.unlabeled is not None
    assert data.test is not None
    assert arrays["pool.truth"].tolist() == data.unlabeled.labels.tolist()
    assert digits.train.labels[arrays["pool.source"]].tolist() == data.unlabeled.labels.tolist()
    assert about["unlabeled"] == len(data.unlabeled)
    summary = json.loads((finished_run / "summary.json").read_text())
    right = arrays["test.answer"] == arrays["test.label"]
    assert right.mean() == pytest.approx(summary["last"]["accuracy"])
    right = arrays["test.adjusted_answer"] == arrays["test.label"]
    assert right.mean() == pytest.approx(summary["last"]["logit_adjusted"]["accuracy"])
    assert ((arrays["holdout.confidence"] > 0.09) & (arrays["holdout.confidence"] <= 1)).all()


def test_galleries_hold_what_they_say(finished_run: Path) -> None:
    arrays, _ = read(finished_run)
    place = arrays["shown.place"]
    assert len(set(place.tolist())) == len(place)
    rows = place[arrays["disagreeing"]]
    assert (arrays["pool.linear"][rows, 0] != arrays["pool.semantic"][rows, 0]).all()
    for name, sign in (("confident", 1), ("uncertain", -1)):
        rows = place[arrays[name]]
        for k in np.unique(arrays["pool.final"]):
            mine = arrays["pool.confidence"][rows][arrays["pool.final"][rows] == k].astype(float)
            of_class = arrays["pool.confidence"][arrays["pool.final"] == k].astype(float)
            best = np.sort(sign * of_class)[::-1][:12]
            assert np.sort(sign * mine)[::-1] == pytest.approx(best, abs=1e-3)
    score = arrays["next.score"]
    assert (np.diff(score) <= 1e-6).all()
    parts = arrays["next.uncertainty"] * arrays["next.rarity"] * arrays["next.novelty"]
    assert score == pytest.approx(parts, rel=1e-4)


def test_thumbnails_are_the_images(finished_run: Path, prepared_run: Prepared) -> None:
    arrays, _ = read(finished_run)
    pools = (unlabeled_images(prepared_run.data), prepared_run.data.labeled.images)
    offsets, content = arrays["thumbnails.offsets"], arrays["thumbnails.bytes"]
    owners = list(
        zip(arrays["thumbnails.pool"].tolist(), arrays["thumbnails.index"].tolist(), strict=True)
    )
    assert len(set(owners)) == len(owners) == len(offsets) - 1
    wanted = {(0, int(i)) for i in arrays["pool.index"][arrays["shown.place"]]}
    wanted |= {(1, int(i)) for i in arrays["shown.near"].ravel() if i >= 0}
    assert set(owners) == wanted
    for (pool, index), start, end in zip(owners, offsets, offsets[1:], strict=False):
        with Image.open(io.BytesIO(content[start:end].tobytes())) as image:
            assert np.array_equal(np.array(image), pools[pool][index, 0].numpy())


def test_large_images_are_shrunk_and_a_budget_is_kept(
    prepared_run: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = torch.zeros(3, 100, 200, dtype=torch.uint8)
    picture[0, :, 100:] = 250
    with Image.open(io.BytesIO(encode_thumbnail(picture))) as image:
        assert (image.format, image.size) == ("JPEG", (64, 32))
        left, right = image.getpixel((10, 10)), image.getpixel((50, 10))
        assert isinstance(left, tuple)
        assert isinstance(right, tuple)
        assert left[0] < 20
        assert right[0] > 230
    monkeypatch.setattr("daso.train.beliefs.thumbnails.MOST_BYTES", 500)
    assert prepared_run.data.unlabeled is not None
    packed = pack_thumbnails([(0, prepared_run.data.unlabeled, np.arange(50))])
    assert 0 < len(packed["bytes"]) <= 500
    assert packed["offsets"][-1] == len(packed["bytes"])
    assert packed["index"].tolist() == list(range(len(packed["offsets"]) - 1))


@pytest.mark.parametrize("method", METHODS)
def test_every_learner_leaves_its_beliefs_and_looking_changes_nothing(
    method: str, tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    prepared = prepare(tiny_config(method, steps=6, evaluate_every=3), digits)
    list(train_run(prepared, tmp_path / "run"))
    arrays, about = read(tmp_path / "run")
    assert prepared.data.unlabeled is not None
    assert len(arrays["pool.final"]) == len(prepared.data.unlabeled)
    assert arrays["map.prototypes"].shape[0] == 10
    assert about["prototypes"] == ("method" if "daso" in method or method == "usadtm" else "means")
    assert about["head"] == ("abc" if "abc" in method else "class")
    before = {name: value.clone() for name, value in prepared.training.tensors().items()}
    mode = prepared.training.average.network.training
    again, _ = collect_beliefs(prepared.training, prepared.data, 0)
    assert all(
        torch.equal(before[name], value) for name, value in prepared.training.tensors().items()
    )
    assert prepared.training.average.network.training == mode
    if "crt" not in method:
        assert all(np.array_equal(again[name], values) for name, values in arrays.items())


def test_a_resumed_run_believes_the_same(finished_run: Path) -> None:
    file = finished_run / "beliefs.safetensors"
    before = file.read_bytes()
    for name in ("beliefs.safetensors", "summary.json"):
        (finished_run / name).unlink()
    for newest in (finished_run / "checkpoints").glob("step-000000020.*"):
        newest.unlink()
    _, rows = resume_run(finished_run)
    assert len(list(rows)) > 0
    assert file.read_bytes() == before


def test_a_large_pool_is_sampled_by_the_seed(
    prepared_run: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daso.train.beliefs.collect, "MOST_IMAGES", 40)
    arrays, about = collect_beliefs(prepared_run.training, prepared_run.data, 0)
    index = arrays["pool.index"]
    assert len(index) == len(set(index.tolist())) == 40
    assert about["unlabeled"] > 40
    pool = prepared_run.data.unlabeled
    assert pool is not None
    assert arrays["pool.truth"].tolist() == pool.labels[torch.from_numpy(index).long()].tolist()
    same, _ = collect_beliefs(prepared_run.training, prepared_run.data, 0)
    other, _ = collect_beliefs(prepared_run.training, prepared_run.data, 1)
    assert np.array_equal(same["pool.index"], index)
    assert not np.array_equal(other["pool.index"], index)


def test_paths_of_a_folder(
    tiny_config: MakeConfig, make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    source = open_source(str(make_image_folder()))
    config = dataclasses.replace(
        tiny_config("supervised", steps=2, evaluate_every=1), source=source.name
    )
    config = dataclasses.replace(config, split=type(config.split)())
    prepared = prepare(config, source)
    list(train_run(prepared, tmp_path / "run"))
    arrays, about = read(tmp_path / "run")
    assert source.unlabeled is not None
    assert (arrays["pool.truth"] == -1).all()
    for index, path in about["paths"].items():
        assert path == source.unlabeled.paths[int(index)]
    labeled = [source.train.paths[i] for i in prepared.data.split.labeled]
    assert about["labeled_paths"]
    for index, path in about["labeled_paths"].items():
        assert path == labeled[int(index)]


def test_without_unlabeled_images_there_is_the_calibration(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    config = tiny_config("supervised", steps=2, evaluate_every=1)
    config = dataclasses.replace(
        config, split=dataclasses.replace(config.split, unlabeled_head=None)
    )
    list(train_run(prepare(config, digits), tmp_path / "run"))
    arrays, about = read(tmp_path / "run")
    assert {name.split(".")[0] for name in arrays} == {"test", "holdout"}
    assert "unlabeled" not in about


def test_vectors_have_no_thumbnails(
    tiny_config: MakeConfig, vectors: Source, tmp_path: Path
) -> None:
    prepared = prepare(
        tiny_config("fixmatch+daso", network=None, steps=4, evaluate_every=2), vectors
    )
    list(train_run(prepared, tmp_path / "run"))
    arrays, _ = read(tmp_path / "run")
    assert not [name for name in arrays if name.startswith("thumbnails")]
    assert len(arrays["next"]) == 100


def test_a_frozen_backbone_shows_the_images_that_were_embedded(
    tiny_config: MakeConfig, digits: Source, tmp_path: Path
) -> None:
    class Halves(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :48]

    frozen = {"network": None, "freeze": True, "embedding_folder": str(tmp_path / "embeddings")}
    config = tiny_config("fixmatch+daso", steps=4, evaluate_every=2, **frozen)
    prepared = prepare(config, digits, encoder=Halves())
    assert prepared.data.are_vectors
    assert prepared.data.unlabeled is not None
    list(train_run(prepared, tmp_path / "run"))
    arrays, _ = read(tmp_path / "run")
    offsets, owners = (
        arrays["thumbnails.offsets"],
        zip(arrays["thumbnails.pool"].tolist(), arrays["thumbnails.index"].tolist(), strict=True),
    )
    unlabeled = digits.train.images[arrays["pool.source"]]
    labeled = digits.train.images[prepared.data.split.labeled]
    seen = set()
    for (pool, index), start, end in zip(owners, offsets, offsets[1:], strict=False):
        with Image.open(io.BytesIO(arrays["thumbnails.bytes"][start:end].tobytes())) as image:
            assert np.array_equal(np.array(image), (unlabeled, labeled)[pool][index, 0])
        seen.add((pool, index))
    assert {(0, int(i)) for i in arrays["pool.index"][arrays["shown.place"]]} <= seen


def test_vectors_of_files_have_the_pictures_of_these(tmp_path: Path) -> None:
    random, paths = np.random.default_rng(0), []
    for number in range(3):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(random.integers(0, 256, (30, 20, 3)).astype(np.uint8)).save(paths[-1])
    Path(paths[1]).unlink()
    pool = Pool(torch.zeros(3, 1, 5), torch.zeros(3, dtype=torch.int64), tuple(paths))
    packed = pack_thumbnails([(0, pool, np.arange(3))])
    assert packed["index"].tolist() == [0, 2]
    with Image.open(io.BytesIO(packed["bytes"].tobytes())) as image:
        assert image.size == (64, 64)
