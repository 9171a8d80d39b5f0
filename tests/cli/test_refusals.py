"""What cannot work is refused before the images are read, and the option is named."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NoReturn

import pytest
from made_files import write_image
from rights import as_nobody

from daso.cli import main
from daso.cli.training import session
from daso.errors import OptionError
from daso.nets.backbone import load_weights
from tests.conftest import MakeFolder

REFUSED = {
    "--recompute --compile": "--compile",
    "--recompute --network mlp-32": "--recompute",
    "--method fixmatch+daso --threshold 2": "(--threshold): it must be from 0 to 1",
    "--method fixmatch+daso --queue-length 0": "(--queue-length): it must be at least 1",
    "--method fixmatch+daso --dist-temperature 0": "(--dist-temperature): it must be above 0",
    "--method fixmatch+crest --steps 3 --generations 5": "(--generations): it must be from 2 to 3",
    "--method fixmatch+la+crt --steps 9 --retraining-steps 9": "(--retraining-steps)",
    "--method boss --threshold 0.5 --threshold-range 0.6": "(--threshold-range)",
    "--method fixmatch --weak-pass alone": "--weak-pass",
    "--method mixtureteacher+la": "add +mixture to it",
    "--shrinkage 2": "(--shrinkage): it must be above 0 and at most 1",
    "--dimensions 1": "(--dimensions): it must be at least 2",
    "--steps -1": "(--steps): it must be at least 0",
    "--method fixmatch --steps 0": "(--steps): it must be at least 1",
    "--holdout -1": "(--holdout): it must be at least 0",
    "--size 0": "(--size): it must be at least 1",
    "--memory -1": "(--memory): it must be at least 0",
    "--network wrn-3-2": "depth",
    "--network hello": "unknown network",
    "--network small-0": "width",
    "--network /nowhere/at-all": "no such folder",
    "--weights nowhere.safetensors": "--network resnet50",
    "--weights nowhere.safetensors --network small": "nowhere.safetensors",
    "--network hf:a --freeze --layer-decay 0.5": "--layer-decay",
    "--freeze": "--freeze needs a pretrained network",
    "--cuda-graph --device cpu": "--cuda-graph",
    "--cache /dev/null/cache": "cannot write",
    "--out /dev/null/run": "cannot write",
}


def test_before_the_images_are_read(
    make_image_folder: MakeFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def read(request: object) -> NoReturn:
        raise AssertionError("the images are read")

    monkeypatch.setattr(session, "read_source", read)
    folder = str(make_image_folder())
    monkeypatch.chdir(tmp_path)
    wrong = []
    for line, words in REFUSED.items():
        status = main(["train", folder, *line.split()])
        told = capsys.readouterr().err
        if status not in (1, 2) or words not in told:
            wrong.append((line, told))
    assert not wrong
    assert not list(tmp_path.iterdir())


def test_those_of_a_run_that_is_repeated(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(config: object) -> NoReturn:
        raise AssertionError("the images are read")

    monkeypatch.setattr(session, "open_configured", read)
    for line, words in (("--threshold 2", "--threshold"), ("--network hello", "unknown network")):
        assert main(["train", "--like", str(finished_run), *line.split()]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "train LONG",
        "train . --out LONG",
        "train --like LONG",
        "data check LONG",
        "label LONG",
        *(f"{verb} LONG" for verb in ("resume", "evaluate", "report", "validate", "compare")),
    ],
)
def test_paths_that_the_system_refuses_are_told(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.replace("LONG", name := 300 * "x").split()) == 1
    said = capsys.readouterr().err
    assert name in said
    assert "shorten the name" in said


def test_a_path_of_daso_itself_that_is_missing_is_no_error_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(words: list[str]) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "part of daso")

    monkeypatch.setattr("daso.cli.verbs.listings.methods.run", fail)
    with pytest.raises(FileNotFoundError):
        main(["methods"])


LOOPING = (
    *("train loop", "train --labeled loop", "train photos --unlabeled loop", "train --like loop"),
    *("train cifar10 --data loop", "train digits --network small --weights loop"),
    *("data check loop", "label loop", "compare loop", "report loop", "predict loop photos"),
    *("resume loop", "reproduce 4 --weights loop"),
)


@pytest.mark.parametrize("words", LOOPING)
def test_a_link_that_leads_to_itself_is_named(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    for label in ("cat", "dog"):
        write_image(Path("photos/labeled") / label / "0.png", 0)
    assert main(words.split()) in (1, 2)
    said = capsys.readouterr().err
    if words == "train photos --unlabeled loop":
        assert "unlabeled: not a folder" in said
    else:
        assert "correct the symbolic link" in said


def test_weights_that_may_not_be_read_are_not_called_missing(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    locked = tmp_path / "locked.safetensors"
    locked.touch(0)
    folder.chmod(0)
    try:
        with as_nobody(tmp_path):
            for path in (locked, folder / "weights.safetensors"):
                with pytest.raises(OptionError, match="Permission denied; grant access"):
                    load_weights(path)
    finally:
        folder.chmod(0o755)
