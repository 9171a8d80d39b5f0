"""Damage to what daso keeps beside runs: the same answer follows, a refusal, or a warning."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import faults, with_fault
from label_sets import label_some, write_folder
from made_files import write_image

from daso.cli import main
from daso.data.images.cache import JOURNAL, Cache
from daso.data.journal import Journal, journal_path
from daso.data.labeling import open_for_labeling, sort_files
from daso.data.labeling.sorting import plan_path
from daso.data.open import open_source
from daso.data.source import Source
from daso.errors import DasoError
from daso.export.loading import load
from daso.export.run import export_run
from daso.label.features import cached, of_patches
from daso.label.images import Images
from daso.train.encoder.embeddings import EmbeddingStore

FLIPS = int(os.environ.get("DASO_FLIPS", "4"))
"""Flipped bits of each file beside those at its start, middle and end."""
Use = Callable[[], tuple[Any, str]]
"""Returns what follows from the files, and what was said."""


def check(files: list[Path], use: Use, *, may_refuse: bool = True) -> dict[str, int]:
    """Damage each file in each way; count what came of it."""
    expected, quiet = use()
    counts = {"same": 0, "refused": 0, "warned": 0}
    for file in files:
        for name, fault in faults(file.name, FLIPS):
            with with_fault(file, fault):
                refused = None
                try:
                    found, said = use()
                except DasoError as error:
                    refused = str(error)
            if refused is not None:
                assert may_refuse, (file, name, refused)
                assert file.stem.lstrip(".") in refused, (file, name, refused)
                counts["refused"] += 1
                continue
            assert found == expected or said != quiet, (file, name, said)
            counts["same" if found == expected else "warned"] += 1
    print(counts, end=" ")
    return counts


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_exported_files(finished_run: Path, digits: Source, kind: Any) -> None:
    if kind == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    file = export_run(finished_run, kind, warn=lambda message: None).path
    images = digits.train.images[:4]

    def use() -> tuple[Any, str]:
        said: list[str] = []
        answers = load(file, "cpu", warn=said.append).probabilities(images)
        return np.asarray(answers).tobytes(), str(said)

    assert check([file], use)["refused"]


def other_image(journal: bytes) -> bytes:
    """Return a line of a journal in which another image is unreadable."""
    return journal.replace(b'"12"', b'"13"')


def test_decoded_images(tmp_path: Path) -> None:
    photos, kept = write_folder(tmp_path / "photos"), tmp_path / "cache"
    for name in ("a", "b", "c"):
        (photos / "unlabeled" / f"{name}.png").write_bytes(b"no image")

    def use() -> tuple[Any, str]:
        trial = shutil.copytree(kept, tmp_path / "trial") if kept.exists() else kept
        source = open_source(str(photos), skip_bad=True, cache=Cache(trial))
        parts = {n: (np.asarray(p.images).tobytes(), p.paths) for n, p in source.parts().items()}
        if trial != kept:
            shutil.rmtree(trial)
        return (parts, source.skipped), ""

    expected = use()
    journal = next(path for path in kept.rglob(JOURNAL) if b'"12"' in path.read_bytes())
    with with_fault(journal, other_image):
        assert use() == expected
    files = [path for path in kept.rglob("*") if path.is_file() and path.name != ".lock"]
    check(files, use, may_refuse=False)


def test_embeddings(tmp_path: Path) -> None:
    keys = [bytes([n]) * 16 for n in range(8)]
    values = torch.arange(8 * 3 * 4.0).reshape(8, 3, 4)

    def use() -> tuple[Any, str]:
        out = np.empty((8, 3, 4), np.float32)
        EmbeddingStore(tmp_path, {}).collect(keys, lambda rows: values[list(rows)], out)
        return out.tobytes(), ""

    use()
    check([path for path in tmp_path.iterdir() if path.is_file()], use, may_refuse=False)


def test_features_for_labeling(tmp_path: Path) -> None:
    photos, kept = write_folder(tmp_path / "photos"), tmp_path / "features.safetensors"
    images = Images(open_for_labeling(str(photos)))
    encoder = of_patches(images)

    def use() -> tuple[Any, str]:
        return cached(kept, images, encoder).features.tobytes(), ""

    use()
    check([kept], use, may_refuse=False)


def test_labels(tmp_path: Path) -> None:
    photos = write_folder(tmp_path / "photos")
    journal = label_some(photos, {0: "cat", 1: "dog", 2: None, 3: "fox", 4: "fox"})

    def use() -> tuple[Any, str]:
        source = open_source(str(photos))
        train = source.train
        return (train.labels.tolist(), train.paths, source.class_names), str(source.notes)

    assert check([journal], use)["refused"]


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_plan_of_a_sorting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, trial = write_folder(tmp_path / "photos"), tmp_path / "trial" / "photos"
    label_some(photos, {0: "cat", 1: "dog", 2: "fox"})
    with monkeypatch.context() as patch, Journal.open(journal_path(photos)) as journal:
        patch.setattr("daso.data.labeling.sorting._carry_out", stop)
        with pytest.raises(KeyboardInterrupt):
            sort_files(journal, open_for_labeling(str(photos)), "move")
    plan = plan_path(journal)
    assert plan.exists()

    def use() -> tuple[Any, str]:
        shutil.rmtree(trial.parent, ignore_errors=True)
        shutil.copytree(photos, trial)
        with Journal.open(journal_path(trial)) as journal:
            sort_files(journal, open_for_labeling(str(trial)), "move")
        return sorted(str(path.relative_to(trial)) for path in trial.rglob("*.png")), ""

    assert check([plan], use)["refused"]


def test_a_stopped_prediction(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        write_image(tmp_path / "new" / f"{number}.png", number)
    out, partial = tmp_path / "out.csv", tmp_path / "out.csv.partial"
    words = ["predict", finished_run, tmp_path / "new", "--out", out, "--device", "cpu"]

    def predict(*more: str) -> tuple[int, str]:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            status = main([*map(str, words), *more])
        return status, said.getvalue()

    with monkeypatch.context() as patch:
        patch.setattr("daso.cli.prediction.output.Journal.remove", lambda self: None)
        assert predict()[0] == 0
    content = partial.read_bytes()

    def use() -> tuple[Any, str]:
        out.unlink(missing_ok=True)
        status, said = predict("--resume")
        if status:
            raise DasoError(said)
        if not partial.exists():
            partial.write_bytes(content)
        return out.read_bytes(), ""

    check([partial], use)
