"""A number that several places state is the same in all of them, to the printed digit."""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_page import report
from safetensors import safe_open

from daso.files import read_json
from daso.label.training import result
from daso.report.html.calibration import calibration
from daso.report.html.run import load_run
from daso.report.results import result_row
from daso.report.runs import read_run
from tests.conftest import Say

CLASSES = ("cat", "dog", "emu", "fox")
QUICK = ["--network", "small-4", "--steps", "8", "--evaluate-every", "1", "--batch", "4"]
QUICK += ["--device", "cpu", "--size", "8", "--quiet"]
KINDS: dict[str, tuple[str, dict[str, tuple[int, ...]], list[str]]] = {
    "test images": ("fixmatch", {"test": (16, 9, 7, 5)}, []),
    "a class without test images": ("fixmatch", {"test": (16, 9, 0, 5)}, []),
    "the rarest without test images": ("supervised", {"test": (16, 9, 7, 0)}, []),
    "balanced": ("supervised+la", {"test": (16, 9, 7, 5)}, []),
    "a hold-out": ("supervised", {}, ["--holdout", "56"]),
    "both, the best deployed": (
        "supervised",
        {"test": (16, 9, 7, 5)},
        ["--holdout", "56", "--deploy", "best"],
    ),
    "validation images": ("fixmatch", {"val": (30, 12, 9, 8)}, []),
    "a readout": ("supervised+mixture", {"test": (16, 9, 7, 5)}, []),
    "calibrated afterwards": ("supervised", {"test": (16, 9, 7, 5)}, []),
}
"""Method, further images by part, and options of a run."""


def write(folder: Path, parts: dict[str, tuple[int, ...]], seed: int = 0) -> Path:
    random = np.random.default_rng(seed)
    for part, numbers in {"labeled": (30, 20, 16, 15), "unlabeled": (8,) * 4, **parts}.items():
        for k, number in enumerate(numbers):
            place = folder / part / ("" if part == "unlabeled" else CLASSES[k])
            place.mkdir(parents=True, exist_ok=True)
            for i in range(number):
                pixels = (40 + 45 * k + random.integers(-60, 60, (8, 8))).clip(0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{k}-{i}.png")
    return folder


class Stated:
    """What is stated of a quantity, by place."""

    def __init__(self) -> None:
        self.texts: dict[str, dict[str, str]] = defaultdict(dict)

    def add(self, quantity: str, place: str, text: str) -> None:
        self.texts[quantity][place] = text.strip()

    def find(self, quantity: str, place: str, pattern: str, text: str) -> None:
        """Add the only text of that form, if there is one."""
        found = set(re.findall(pattern, text))
        assert len(found) <= 1, (quantity, place, found)
        for one in found:
            self.add(quantity, place, one)

    def check(self) -> int:
        for quantity, places in self.texts.items():
            assert len(set(places.values())) == 1, (quantity, places)
        return sum(len(places) > 1 for places in self.texts.values())


def printed(value: object) -> str:
    known = isinstance(value, float) and np.isfinite(value)
    return f"{100 * value:.1f}" if known else "-"  # type: ignore[operator]


def cells_of(line: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    return re.split(r" *\| *", line)[1:-1]


def table(text: str) -> dict[str, list[str]]:
    """Return rows of the terminal's tables: their cells by the first one."""
    rows = (re.split(r"\s{2,}", line.strip()) for line in text.splitlines())
    return {row[0]: row[1:] for row in rows if len(row) > 1}


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_is_the_same_wherever_it_is_stated(
    kind: str, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "220")
    method, parts, options = KINDS[kind]
    images, run, stated = write(tmp_path / "images", parts), tmp_path / "run", Stated()
    words = ["train", images, "--method", method, *options, *QUICK, "--out", run]
    status, said = say(*words)
    assert status == 0, said
    if kind == "calibrated afterwards":
        status, fitted = say("calibrate", run, write(tmp_path / "others", {}, seed=1) / "labeled")
        assert status == 0, fitted
        stated.find("temperature", "daso calibrate", r"temperature ([\d.]+)", fitted)
        stated.find("fitted on", "daso calibrate", r"fitted on (\d+) labeled", fitted)
        stated.find("error before", "daso calibrate", r"changes from ([\d.]+)%", fitted)
        said = say("resume", run)[1]
    summary, folder = read_json(run / "summary.json"), read_run(run)
    on, median, last = summary["measured_on"], summary["median_of_last"], summary["last"]
    deployed = summary["best_on_holdout"] if "best" in options else last

    # The terminal's tables.
    rows, names = table(said), {"accuracy": "accuracy", "balanced accuracy": "balanced_accuracy"}
    names["calibration error"] = "calibration_error"
    for name, key in names.items():
        (row,) = [row for row in rows if re.fullmatch(rf"{name}( \(\d of \d classes\))?", row)]
        adjusted = [] if folder.balanced_by else [median["logit_adjusted"][key]]
        for number, value in enumerate([median[key], *adjusted, last[key]]):
            stated.add(f"{name} {number}", "terminal", rows[row][number])
            stated.add(f"{name} {number}", "summary.json", printed(value))
    for place, third in enumerate(("many", "medium", "few")):
        label = ("recall, many labels", "recall, medium", "recall, few labels")[place]
        (key,) = [name for name in rows if name.startswith(label)]
        stated.add(label, "terminal", rows[key][0])
        stated.add(f"{third} classes", "terminal", re.findall(r"\((\d) class", key)[0])
        stated.add(f"{third} classes", "daso.report", str(len(folder.groups[third])))
        stated.add(label, "summary.json", printed(median[f"recall_{third}"]))
    stated.find("interval", "terminal", r"balanced accuracy: ± ([\d.]+) points", said)

    # The report.
    text = report(run).text
    tile = r"balanced accuracy ([\d.]+) ± [\d.]+"
    stated.find("balanced accuracy 0", "report", tile, text)
    stated.find("interval", "report", r"balanced accuracy [\d.]+ ± ([\d.]+)", text)
    stated.find("interval", "report's sentence", r"accuracy: ± ([\d.]+) points", text)
    rarest = r"recall, (?:rarest class|\d rarest classes) ([\d.]+|\u2013)"
    stated.find("recall, few labels", "report", rarest, text)
    stated.find("calibration error 0", "report", r"calibration error ([\d.]+) (?:as|logit)", text)
    stated.find("answered error", "report's tile", r"daso predict ([\d.]+)", text)
    stated.find("temperature", "report", r"a temperature of ([\d.]+)\.", text)
    stated.find("fitted on", "report", r"fitted on (\d+) ", text)
    stated.find("error before", "report", r"calibration error from ([\d.]+)%", text)
    assert ("These are few images" in text) == ("mean nothing" in said.split("interval")[1])
    drawn = calibration(load_run(run))
    assert drawn is not None
    diagrams = {one["name"]: one["error"] for one in drawn["diagrams"]}
    stated.add("deployed error", "diagram", diagrams["as trained"])
    stated.add("deployed error", "summary.json", printed(deployed["calibration_error"]))
    if "as daso predict answers" in diagrams:
        stated.add("answered error", "diagram", diagrams["as daso predict answers"])

    # What the run is calibrated with.
    stated.find("answered error", "terminal", r"of daso predict: ([\d.]+)%", said)
    stated.find("temperature", "terminal", r"a temperature of ([\d.]+) ", said)
    stated.find("fitted on", "terminal", r"fitted on (\d+) ", said)

    # Comparison, results file and the page of daso label.
    status, compared = say("compare", run, "--out", tmp_path / "compared")
    assert status == 0, compared
    for row in csv.DictReader((tmp_path / "compared" / "comparison.csv").open()):
        quantity = row["number"] + (" 0" if row["number"] in names else "")
        quantity += f" of {row['class']}" if row["class"] else ""
        mean = float(row["mean"]) / 100 if row["mean"] else None
        stated.add(quantity, "comparison.csv", printed(mean))
    markdown = (tmp_path / "compared" / "comparison.md").read_text()
    lines = [cells_of(line) for line in markdown.splitlines() if line.startswith("| ")]
    for name, cell in zip(lines[0], lines[1], strict=True):
        if name in names:
            stated.add(f"{name} 0", "comparison.md", cell)
    assert "holdout images" not in compared + markdown
    row = result_row(folder)
    stated.add("balanced accuracy 0", "results", f"{row['balanced_accuracy']:.1f}")
    told = result(run)
    stated.add("balanced accuracy 0", "daso label", printed(told["balanced_accuracy"]))
    stated.add("interval", "daso label", printed(told["interval"]))
    stated.add("recall, few labels", "daso label", printed(told["recall_few"]))

    # The model that is deployed: evaluated, exported.
    evaluated = say("evaluate", run)[1]
    numbers = json.loads(say("evaluate", run, "--json")[1].partition("{")[2].join(["{", ""]))[on]
    status, exported = say("export", run, "--format", "safetensors")
    assert status == 0, exported
    card = (run / "model.safetensors.md").read_text()
    sentence = rf"[Oo]n (?:{'test' if on == 'test' else 'held-out'}) images.*?: accuracy ([\d.]+)%"
    stated.find("deployed accuracy", "daso evaluate", sentence, evaluated.replace("\n", " "))
    stated.find("deployed accuracy", "card", r"images: accuracy ([\d.]+)%", card)
    stated.add("deployed accuracy", "--json", printed(numbers["accuracy"]))
    stated.add("deployed accuracy", "summary.json", printed(deployed["accuracy"]))
    stated.find("balanced accuracy 0", "card", r"accuracy of the run: ([\d.]+)%", card)
    stated.find("temperature", "card", r"the temperature ([\d.]+),", card)
    stated.find("fitted on", "card", r"fitted on (\d+) ", card)
    with safe_open(run / "model.safetensors", framework="numpy") as file:
        facts = file.metadata()
    if "temperature" in stated.texts:
        stated.add("temperature", "metadata", f"{json.loads(facts['temperature']):.3f}")
    labeled = json.loads(facts["labeled_counts"])
    counts = read_json(run / "confusion.json")["counts"]
    for k, name in enumerate(CLASSES):
        stated.add(f"recall of {name}", "terminal", rows[name][1])
        stated.add(f"precision of {name}", "terminal", rows[name][2])
        stated.add(f"precision of {name}", "summary.json", printed(median["precision"][k]))
        stated.add(f"recall of {name}", "summary.json", printed(median["recall"][k]))
        (cells,) = [cells_of(row) for row in card.splitlines() if row.startswith(f"| {name} |")]
        stated.add(f"tested images of {name}", "card", cells[4])
        stated.add(f"tested images of {name}", "confusion.json", str(sum(counts[k])))
        stated.add(f"tested images of {name}", "data.json", str(folder.data[f"{on}_counts"][k]))
        stated.add(f"labels of {name}", "card", cells[1])
        stated.add(f"labels of {name}", "metadata", str(labeled[k]))
        stated.add(f"labels of {name}", "terminal", rows[name][0])
        stated.add(f"deployed recall of {name}", "card", cells[2] or "-")
        stated.add(f"deployed recall of {name}", "--json", printed(numbers["recall"][k]))
        few = card.partition("Tested on fewer")[2].partition("\n")[0]
        assert (name in few) == (0 < sum(counts[k]) < 20)
        assert (name in card.partition("Not tested")[2].partition("\n")[0]) == (not sum(counts[k]))
    missing = [name for k, name in enumerate(CLASSES) if not sum(counts[k])]
    of = f"{len(CLASSES) - len(missing)} of {len(CLASSES)} classes"
    statements = {"terminal": said, "report": text, "card": card, "daso evaluate": evaluated}
    for place, statement in statements.items():
        assert (of in statement) == bool(missing), place
    assert (f"the means are without them: {', '.join(missing)}." in compared) == bool(missing)
    assert stated.check() >= 25
    assert len(stated.texts["balanced accuracy 0"]) >= 7
