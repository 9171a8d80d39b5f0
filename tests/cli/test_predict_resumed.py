"""daso predict that was killed or stopped goes on, with the same images, contents and model."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import time
import zlib
from pathlib import Path

import pytest
import safetensors.numpy
from forked import command, finish, start
from prediction import Predict

from daso.cli import main
from daso.cli.prediction import classify as predict_verb
from daso.cli.prediction.output import Journal
from daso.files import read_json, save_json


def start_and_kill(run: Path, files: list[Path], out: Path, *, after: int) -> None:
    """Kill a prediction of a list that it is fed bit by bit, once *after* rows are in its journal."""
    journal, listing = out.with_name(f"{out.name}.partial"), out.with_name("listing")
    os.mkfifo(listing)
    words = ["predict", run, "-", "--out", out, "--device", "cpu"]
    process = start(command, words, out.with_name("said"), listing)
    with listing.open("w") as stream:
        for file in files:
            stream.write(f"{file}\n")
        stream.flush()  # and it waits for more: the pipe stays open
        while not journal.exists() or journal.read_bytes().count(b"\n") <= after:
            assert process.is_alive(), out.with_name("said").read_text()
            time.sleep(0.02)
        process.kill()
        finish(process)


def test_a_killed_prediction_goes_on(
    finished_run: Path,
    images: Path,
    tmp_path: Path,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = sorted(images.rglob("*.png")) * 60
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    (tmp_path / "files.csv").write_text("path\n" + "".join(f"{file}\n" for file in files))
    predict(tmp_path / "files.csv", "--out", whole)
    start_and_kill(finished_run, files, out, after=256)
    assert not out.exists()
    journal = tmp_path / "out.csv.partial"
    done = journal.read_bytes().count(b"\n") - 1
    assert 256 <= done < len(files)
    with journal.open("ab") as file:
        file.write(b'["a row that was cut o')

    assert main(["predict", str(finished_run), "-", "--out", str(out)]) == 2
    assert "--resume" in capsys.readouterr().err
    assert (
        main(
            ["predict", str(finished_run), str(images), "--out", str(out), "--resume", "--top", "2"]
        )
        == 2
    )
    assert "other options" in capsys.readouterr().err
    _, said = predict(images, "--out", out, "--resume", status=1)
    assert "images have changed" in said

    listing = io.TextIOWrapper(io.BytesIO("\n".join(map(str, files)).encode()))
    monkeypatch.setattr(sys, "stdin", listing)
    _, said = predict("-", "--out", out, "--resume")
    assert f"resumed after {done:,} images" in said
    assert out.read_bytes() == whole.read_bytes()
    assert not journal.exists()


def test_a_stopped_prediction_goes_on_only_with_the_same_contents(
    finished_run: Path,
    images: Path,
    tmp_path: Path,
    predict: Predict,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here, model, out = tmp_path / "images", tmp_path / "run", tmp_path / "out.csv"
    shutil.copytree(images, here)
    shutil.copytree(finished_run, model)
    files = sorted(here.rglob("*.png")) * 60
    start_and_kill(model, files, out, after=256)
    journal = tmp_path / "out.csv.partial"
    listed = tmp_path / "files.csv"
    listed.write_text("path\n" + "".join(f"{file}\n" for file in files))
    line = (listed, "--out", out, "--resume")
    stopped = journal.read_bytes()
    status = files[1].stat()
    content, other = files[1].read_bytes(), files[2].read_bytes()
    files[1].write_bytes(other)
    os.utime(files[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    _, said = predict(*line, status=1, model=model)
    assert "number 2 " in said
    assert "another content" in said
    assert journal.read_bytes() == stopped
    files[1].write_bytes(content)  # an equal copy is the same image
    record = max((model / "checkpoints").glob("step-*.json"))
    checkpoint = record.with_suffix(".safetensors")
    tensors = safetensors.numpy.load_file(checkpoint)
    name = next(name for name in tensors if "heads" in name)
    safetensors.numpy.save_file({**tensors, name: tensors[name] + 1}, checkpoint)
    save_json(
        record,
        {**read_json(record), "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()},
    )
    assert main(["predict", str(model), *map(str, line)]) == 2
    assert "another model" in capsys.readouterr().err


def test_what_could_not_be_read_is_tried_again(
    finished_run: Path,
    images: Path,
    tmp_path: Path,
    predict: Predict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, out, whole = tmp_path / "images", tmp_path / "out.csv", tmp_path / "whole.csv"
    shutil.copytree(images, here)
    predict(here, "--out", whole)
    broken = sorted(here.rglob("*.png"))[1:4]
    contents = [path.read_bytes() for path in broken]
    for path in broken:
        path.write_bytes(b"not yet")
    write_output = predict_verb.write_output

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_verb, "write_output", interrupted)
    assert main(["predict", str(finished_run), str(here), "--out", str(out)]) == 130
    monkeypatch.setattr(predict_verb, "write_output", write_output)
    for path, content in zip(broken[:2], contents, strict=False):
        path.write_bytes(content)
    _, said = predict(here, "--out", out, "--resume", status=1)
    assert "3 that could not be read are tried again" in said
    assert "1 of " in said
    lines, expected = out.read_text().splitlines(), whole.read_text().splitlines()
    assert len(lines) == len(expected)
    differ = [a for a, b in zip(lines, expected, strict=True) if a != b]
    assert len(differ) == 1
    assert differ[0].startswith(str(broken[2]))


def test_a_line_that_is_no_row_is_as_one_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "out.csv.partial"
    Journal(path, {}, resume=False)._file.close()
    whole = path.read_bytes()
    for text in (b"2", b"{}", b"null", b"[1, 2]"):
        path.write_bytes(whole + b"%08x %s\n" % (zlib.crc32(text), text))
        journal = Journal(path, {}, resume=True)
        assert journal.skip(iter(())) == {}
        assert journal.count == 0
        assert path.read_bytes() == whole
        journal._file.close()
