"""Write the model card of an exported file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from daso.errors import RunError, how_many
from daso.evaluate.metrics import recall_precision
from daso.export.facts import ModelFacts
from daso.files import printable, read_json
from daso.report.wording import markdown, of_classes, percent
from daso.train.calibration import read_calibration
from daso.train.model import Model

FEW_LABELS = 10
FEW_TESTED = 20
LOW_RECALL = 0.5
MAX_NAMES = 20

Counts = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Check:
    """The comparison of an exported file with the original.

    Attributes:
        images, what: number and kind of the images compared.
        difference: largest difference of a probability.
        from_run: largest difference from the run, if that computes in another precision than the
            file; else None.
        same_class: number of images to which file and run give the same class; else None.
    """

    images: int
    what: str
    difference: float
    runtime: str
    from_run: float | None = None
    same_class: int | None = None


CODE = {
    "onnx": """import json, onnxruntime
session = onnxruntime.InferenceSession({name})
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
probabilities = session.run(None, {{"images": images}})[0]""",
    "torch": """import json, torch
files = {{"facts.json": ""}}
model = torch.export.load({name}, extra_files=files).module()  # only a file that you trust
names = json.loads(json.loads(files["facts.json"])["class_names"])
probabilities = model(images)""",
    "safetensors": """import daso
probabilities = daso.load({name}).predict(images).probabilities""",
}
"""How a program uses a file, by its format."""


def model_card(
    folder: Path, model: Model, facts: ModelFacts, kind: str, name: str, check: Check
) -> str:
    """Return ``card.md``, filled in for a run's model exported to a file."""
    data = read_json(folder / "data.json")
    summary, confusion = _read(folder / "summary.json"), _read(folder / "confusion.json")
    counts = np.array(confusion["counts"]) if confusion else None
    if counts is None:
        rows = zip(map(markdown, facts.class_names), facts.labeled_counts, strict=True)
        why = "the run had no test and no hold-out images"
        if not summary:
            steps = model.config.train.steps
            why = f"the training stopped after {facts.step:,} of {steps:,} steps"
        quality = f"**Not measured**: {why}.\n\n"
        quality += _table([["class", "labels"], *rows])
    else:
        on_test, best = confusion["measured_on"] == "test", model.config.train.deploy == "best"
        quality = _quality(facts, summary, counts, on_test=on_test, chosen=best)
    trained = ""
    if check.from_run is not None:
        trained = (
            f" The training computed in {model.config.train.precision}, this file in float32: the "
            f"run itself gives the same class to {check.same_class} of these images, with "
            f"probabilities up to {check.from_run:.2g} apart."
        )
    prior = "the class frequencies of the labeled images"
    if facts.balanced_by:
        prior = "balanced classes"
    sizes = {name: f"{data.get(name) or 0:,}" for name in ("unlabeled", "holdout", "test")}
    template = files("daso.export").joinpath("card.md").read_text(encoding="utf-8")
    return template.format(
        data=markdown(facts.provenance.get("data")),
        head=_head(facts, kind, name),
        code=CODE[kind].format(name=json.dumps(printable(name), ensure_ascii=False)),
        other_sizes=_other_sizes(facts) if kind != "safetensors" else "",
        labels=f"{sum(facts.labeled_counts):,}",
        classes=len(facts.class_names),
        most=f"{max(facts.labeled_counts):,}",
        fewest=f"{min(facts.labeled_counts):,}",
        **sizes,
        quality=quality,
        calibration=_calibration(folder, facts),
        prior=prior,
        limits="".join(f"* {point}\n" for point in _limits(facts, counts)),
        origin=_origin(facts.provenance),
        trained=trained,
        **vars(check),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except RunError:
        return {}


def _table(rows: Sequence[Sequence[object]]) -> str:
    head, *body = rows
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join(lines)


def _head(facts: ModelFacts, kind: str, name: str) -> str:
    shape = " x ".join(map(str, facts.input_shape))
    inputs = f"float32 vectors, N x {shape}"
    if facts.takes_images:
        inputs = f"uint8 images, N x {shape} ({'RGB' if facts.input_shape[0] == 3 else 'gray'})"
    classes, network = len(facts.class_names), markdown(facts.provenance.get("network"))
    is_code = not set(name) & set("`|\n")  # Markdown cannot hold these in code
    rows = [
        ["", ""],
        ["file", f"{f'`{printable(name)}`' if is_code else markdown(name)}, {kind}"],
        ["input", inputs],
        ["output", f"probabilities of {classes} classes, N x {classes}, float32"],
        ["method", f"{markdown(facts.method)}, network {network}, {facts.step:,} steps"],
    ]
    return _table(rows)


def _other_sizes(facts: ModelFacts) -> str:
    if not facts.takes_images:
        return ""
    _, height, width = facts.input_shape
    resize = f"the model was trained on {width} x {height} pixels only"
    if height == width:
        resize = (
            "rotate the image as its EXIF orientation says, scale 16 bits to 8 (divide by 257), "
            "put transparent parts on white, crop "
            f"the central square and resize it to {width} x {height} (bilinear, antialiased: "
            f"Pillow's `resize(({width}, {height}), Image.Resampling.BILINEAR, box=...)`)"
        )
    scaled = "The model scales and normalizes pixel values itself."
    return f"\n{scaled} For images of another size: {resize}.\n"


def _quality(
    facts: ModelFacts, summary: dict[str, Any], counts: Counts, *, on_test: bool, chosen: bool
) -> str:
    recall, precision = recall_precision(counts)
    lines = [
        f"On {how_many(counts.sum(), 'test image' if on_test else 'held-out image')}: accuracy "
        f"{percent(np.diag(counts).sum() / counts.sum())}%, balanced accuracy (mean recall of the "
        f"classes) {percent(float(np.nanmean(recall)))}%{of_classes(recall)}."
    ]
    if summary.get("balanced_accuracy") is not None:
        balanced = percent(summary["balanced_accuracy"])
        lines.append(f"Balanced accuracy of the run: {balanced}% ({summary['measure']}).")
    uses = ["choose the network"] if chosen else []
    uses += ["calibrate"] if facts.calibration_note is None else []
    if uses and not on_test:
        lines.append(
            f"The hold-out was also used to {' and to '.join(uses)}: new images may score lower."
        )
    head = ("class", "labels", "recall %", "precision %", "tested on", "most often confused with")
    rows: list[Sequence[object]] = [head]
    for k, name in enumerate(facts.class_names):
        wrong = counts[k].copy()
        wrong[k] = 0
        other = facts.class_names[int(wrong.argmax())]
        confused = f"{markdown(other)} ({int(wrong.max())})" if wrong.sum() else ""
        shares = percent(recall[k]), percent(precision[k])
        rows.append([markdown(name), facts.labeled_counts[k], *shares, counts[k].sum(), confused])
    return " ".join(lines) + "\n\n" + _table(rows)


def _calibration(folder: Path, facts: ModelFacts) -> str:
    fit = read_calibration(folder, facts.step)
    if fit.note:
        return f"The probabilities are not calibrated: {markdown(fit.note)}."
    kind = "held-out" if fit.given is None else "further labeled"
    rows = [
        [f"{kind} images", "before", "after"],
        ["negative log-likelihood", f"{fit.loss_before:.4f}", f"{fit.loss_after:.4f}"],
        ["expected calibration error", f"{fit.error_before:.4f}", f"{fit.error_after:.4f}"],
    ]
    return (
        f"Logits are divided by the temperature {fit.temperature:.3f}, fitted on {fit.images:,} "
        f"{kind} images; measured on the same images:\n\n{_table(rows)}"
    )


def _limits(facts: ModelFacts, counts: Counts | None) -> Iterator[str]:
    def names(mask: Counts) -> str:
        chosen = [
            markdown(n) for n, applies in zip(facts.class_names, mask, strict=True) if applies
        ]
        more = f" and {len(chosen) - MAX_NAMES} more" if len(chosen) > MAX_NAMES else ""
        return ", ".join(chosen[:MAX_NAMES]) + more

    rare = np.array(facts.labeled_counts) < FEW_LABELS
    if rare.any():
        yield f"Fewer than {FEW_LABELS} labeled images each: {names(rare)}."
    if counts is None:
        return
    missed, tested = recall_precision(counts)[0] < LOW_RECALL, counts.sum(1)
    unsure = (tested > 0) & (tested < FEW_TESTED)
    if missed.any():
        yield f"Recognized less than half of the time: {names(missed)}."
    if unsure.any():
        few = f"Tested on fewer than {FEW_TESTED} images each, so the recall is a rough estimate"
        yield f"{few}: {names(unsure)}."
    if (tested == 0).any():
        yield f"Not tested, for lack of images: {names(tested == 0)}."


def _origin(origin: Mapping[str, Any]) -> str:
    shown = {name: origin.get(name) for name in ("daso", "commit", "torch", "seed")}
    shown["split"] = origin.get("split_fingerprint")
    pools = origin.get("images_fingerprints") or {}
    shown |= {f"images, {pool}": value or None for pool, value in pools.items()}
    rows = [[name, f"`{value}`"] for name, value in shown.items() if value is not None]
    return _table([["", ""], *rows])
