"""Methods and parts of the user's own, from their files, by the command line."""

import json
import re
from pathlib import Path

import pytest
import torch
from small_learners import build, make_batch, make_network

from daso.cli import main
from daso.compose import Recipe
from daso.errors import OptionError
from daso.report.runs import read_run

PAGE = Path(__file__).parents[2] / "docs" / "own_method.md"
TINY = ["--steps", "6", "--batch", "8", "--evaluate-every", "3"]
TINY += ["--network", "small-4", "--device", "cpu"]


@pytest.fixture
def code() -> str:
    """Return the method that the documentation shows."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return block


def test_the_documented_method_is_50_lines_and_trains(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len([line for line in code.splitlines() if line.strip()]) <= 50
    (tmp_path / "debiased.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    name = "debiased.py:DebiasPL"
    assert (
        main(["train", "digits", "--method", name, "--debias", "0.25", "--out", "run", *TINY]) == 0
    )
    config = json.loads(Path("run/config.json").read_text())
    # The run finds its method again from wherever it is resumed.
    assert (config["method"], config["method_options"]["debias"]) == (str(tmp_path / name), 0.25)
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert rows[0]["losses"].keys() == {"labeled", "unlabeled"}
    assert main(["resume", "run"]) == 0
    assert main(["evaluate", "run"]) == 0


def test_the_documented_method_is_the_one_of_the_package(code: str, tmp_path: Path) -> None:
    (tmp_path / "debiased.py").write_text(code, encoding="utf-8")
    options = {"threshold": 0.8, "debias": 0.7, "mean_decay": 0.5}
    names = (f"{tmp_path / 'debiased.py'}:DebiasPL", "debiaspl")
    written, own = (build(name, **options) for name in names)
    network = make_network().eval()
    for step in range(4):
        batch = make_batch(own, step)
        results = [method(network, network, batch) for method in (written, own)]
        torch.testing.assert_close(results[0].losses, results[1].losses)
        assert torch.equal(results[0].pseudo_labels.mask, results[1].pseudo_labels.mask.float())


VARIANT = """
from typing import Any
import torch
from daso.methods import FixMatch

class Cautious(FixMatch):
    '''FixMatch whose first steps teach nothing.

    Args:
        patience: steps, >= 0.
    '''

    refuses = {"terms": "it is alone"}

    def __init__(self, *, patience: int = 2, **shared: Any) -> None:
        super().__init__(**shared)
        self.patience = patience

    def weigh(self, guess):
        return super().weigh(guess) * (guess.step >= self.patience)
"""


def test_a_variant_of_fixmatch_takes_its_options_and_parts(tmp_path: Path) -> None:
    (tmp_path / "cautious.py").write_text(VARIANT, encoding="utf-8")
    name = f"{tmp_path / 'cautious.py'}:Cautious"
    recipe = Recipe.parse(f"{name}+la+daso")
    found = recipe.hyperparameters()
    assert found.keys() >= {"patience", "threshold", "weak_pass", "adjustment_strength", "blend"}
    assert found["threshold"].help == Recipe.parse("fixmatch").hyperparameters()["threshold"].help
    with pytest.raises(OptionError, match="it is alone"):
        Recipe.parse(f"{name}+abc")
    method, network = build(name, threshold=0.3, patience=1), make_network().eval()
    assert recipe.resolved_options(build(f"{name}+la+daso", threshold=0.3))["threshold"] == 0.3
    sums = [
        method(network, network, make_batch(method, step)).pseudo_labels.mask.sum()
        for step in (0, 1)
    ]
    assert sums[0] == 0 < sums[1]


def test_a_method_of_ones_own_is_helped_and_checked_like_any_other(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine_to_help.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["train", "--method", "mine_to_help:DebiasPL", "--help"])
    assert "strength of the correction" in capsys.readouterr().out
    arguments = ["train", "digits", "--method", "mine_to_help:DebiasPL", "--out", "run", *TINY]
    assert main([*arguments, "--threshold", "2"]) == 2
    assert "out of range" in capsys.readouterr().err
    assert not Path("run").exists()
    assert (
        main(["train", "digits", "--method", "mine_to_help:DebiasPL+daso", "--out", "run", *TINY])
        == 2
    )
    assert "does not take 'daso'" in capsys.readouterr().err


def test_a_part_of_ones_own_is_added_to_a_method(tmp_path: Path) -> None:
    file = tmp_path / "parts.py"
    file.write_text(
        """
from daso.losses.labeled import LabeledLoss
from daso.refine.guess import Refiner


class Halved(LabeledLoss):
    def forward(self, logits, labels, step):
        return super().forward(logits, labels, step) / 2


class Same(Refiner):
    pass
"""
    )
    recipe = Recipe.parse(f"fixmatch+{file}:Halved+{file}:Same+daso")
    assert recipe.loss is not None
    assert [recipe.loss.__name__, *(part.__name__ for part in recipe.refiners)] == [
        "Halved",
        "Same",
        "DASO",
    ]
    with pytest.raises(OptionError, match="Did you mean 'Halved'"):
        Recipe.parse(f"fixmatch+{file}:Halve")
    with pytest.raises(OptionError, match="no Method called 'Halved'"):
        Recipe.parse(f"{file}:Halved")


def test_what_cannot_be_found_is_said() -> None:
    for name, message in (
        ("no_such_module:Mine", "cannot import 'no_such_module'"),
        ("no/such/file.py:Mine", "does not exist"),
        ("json:JSONDecoder", "no Method called 'JSONDecoder'"),
        (":Mine", "cannot import ''"),
    ):
        with pytest.raises(OptionError, match=message):
            Recipe.parse(name)


def test_a_part_of_ones_own_says_what_is_true_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "balanced.py"
    file.write_text(
        """
from daso.losses.labeled import LabeledLoss


class Balanced(LabeledLoss):
    balances = True

    def __init__(self, *, speed: float = 1.0):
        super().__init__()
        self.speed = speed

    @classmethod
    def idle_options(cls, options, parts):
        yield ("speed",), "nothing is fast"
"""
    )
    run = tmp_path / "run"
    method = ["--method", f"supervised+{file}:Balanced", "--speed", "2"]
    assert main(["train", "digits", *method, "--out", str(run), *TINY]) == 0
    assert "--speed has no effect: nothing is fast" in capsys.readouterr().err
    recorded = json.loads((run / "data.json").read_text())["method"]
    assert recorded == {"balanced_by": ["Balanced"], "slots": ["supervised"]}
    assert read_run(run).balanced_by == ("Balanced",)
    assert main(["evaluate", str(run)]) == 0
    assert "(Balanced)" in capsys.readouterr().err


def write_method(file: Path, constructor: str, imports: str = "") -> str:
    """Write a method whose constructor is given, after self; return its name."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(
        f"""
from __future__ import annotations
{imports}
from daso.methods.supervised import Supervised


class Mine(Supervised):
    def __init__(self, {constructor}
        super().__init__()
"""
    )
    return f"{file}:Mine"


def test_a_constructor_that_cannot_be_called_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (constructor, message) in enumerate(
        (
            ("*, speed: float = 1.0):", "does not keep its hyper-parameter 'speed'.*self.speed"),
            ("*, speed: float):", "hyper-parameter 'speed' has no default"),
            ("*, speed=1.0):", "hyper-parameter 'speed' has no type"),
            ("*, speed):", "hyper-parameter 'speed' has no type and no default"),
            ("*, speed: Speed = 1.0):", "type of 'speed' is unknown.*Speed"),
            ("*, momentum: float = 0.9):", "Mine has a hyper-parameter 'momentum'"),
            ("speed):", "'speed', which is not a fact of a run"),
        )
    ):
        name = write_method(tmp_path / f"lacking{number}.py", constructor)
        out = str(tmp_path / "run")
        assert main(["train", "digits", "--method", name, "--out", out, *TINY]) == 2
        assert re.search(message, capsys.readouterr().err), constructor
        assert not (tmp_path / "run").exists()


def test_a_plus_in_a_path_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a+b"
    name = write_method(folder / "mine.py", "):")
    for method in (name, f"{name}+la", f"fixmatch+{name}"):
        with pytest.raises(OptionError, match=r"a\+b/mine.py contains a \+"):
            Recipe.parse(method)
    # The name that is noted has the whole path.
    monkeypatch.chdir(folder)
    assert (
        main(["train", "digits", "--method", "mine.py:Mine", "--out", str(tmp_path / "run"), *TINY])
        == 2
    )
    assert "contains a +" in capsys.readouterr().err


def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("class Broken(:\n")
    failing = write_method(tmp_path / "failing.py", "):", imports="undefined_name")
    for name, message in (
        (f"{tmp_path}/broken.py:Broken", r"cannot import .*broken\.py"),
        (failing, r"cannot import .*failing.py': NameError: .*undefined_name"),
    ):
        with pytest.raises(OptionError, match=message):
            Recipe.parse(name)


@pytest.mark.parametrize("name", ["noted_file.py:Mine", "noted_module:Mine"])
def test_a_file_that_has_changed_since_is_said_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = tmp_path / (name.partition(":")[0].removesuffix(".py") + ".py")
    write_method(file, "):")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", "--method", name, "--out", "run", *TINY]) == 0
    noted = json.loads(Path("run/environment.json").read_text())["own_files"]
    assert [Path(path).name for path in noted] == [file.name]
    Path("run/summary.json").unlink()
    for checkpoint in Path("run/checkpoints").glob("step-*6.*"):
        checkpoint.unlink()
    file.write_text(file.read_text() + "# another one now\n")
    capsys.readouterr()
    assert main(["resume", "run"]) == 0
    assert (
        f"own files {next(iter(noted))} ({noted[next(iter(noted))]}), now"
        in capsys.readouterr().err
    )
