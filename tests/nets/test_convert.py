"""Files of torch.save become safetensors, and nothing in them is run."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from daso.errors import OptionError
from daso.nets.backbone import load_weights
from daso.nets.convert import convert

TENSORS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        {"epoch": 3, "state_dict": {f"module.{name}": t for name, t in TENSORS.items()}},
        {"model": TENSORS, "optimizer": {"lr": 0.1}},
        {"a.weight": torch.arange(6.0).view(2, 3).T.contiguous().T, "a.bias": torch.ones(3)[:2]},
    ],
    ids=["plain", "several devices", "checkpoint", "views"],
)
def test_tensors_are_those_of_the_file(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pth")
    written = convert(tmp_path / "model.pth")
    assert written == tmp_path / "model.safetensors"
    found = load_weights(written)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], TENSORS[name]) for name in TENSORS)


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    torch.save({"first": shared, "second": shared}, tmp_path / "model.pt")
    found = load_weights(convert(tmp_path / "model.pt", tmp_path / "out.safetensors"))
    assert torch.equal(found["first"], shared)
    assert torch.equal(found["second"], shared)


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_code_is_not_run_and_what_is_wrong_is_told(tmp_path: Path) -> None:
    torch.save({"weight": Harmful(tmp_path / "ran")}, tmp_path / "bad.pth")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"lr": 0.1}, tmp_path / "numbers.pth")
    for name, said in (
        ("bad.pth", "cannot read tensors"),
        ("text.pth", "cannot read tensors"),
        ("none.pth", "cannot read tensors"),
        ("list.pth", "holds list, not a dictionary"),
        ("numbers.pth", "no tensors by name; its keys are 'lr'"),
    ):
        with pytest.raises(OptionError, match=said):
            convert(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    assert not list(tmp_path.glob("*.safetensors"))


def test_the_command_that_the_refusal_of_pickles_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pth"
    torch.save(TENSORS, path)
    with pytest.raises(OptionError, match=r"python -m daso.nets.convert") as caught:
        load_weights(path)
    arguments = str(caught.value).rpartition("python -m ")[2].split()
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.delitem(sys.modules, arguments[0], raising=False)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    assert capsys.readouterr().out.strip() == str(tmp_path / "model.safetensors")
    assert load_weights(tmp_path / "model.safetensors").keys() == TENSORS.keys()
