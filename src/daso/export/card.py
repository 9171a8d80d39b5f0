"""The card of an exported model: what it is, how good, on what, and where its limits are. In Markdown."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daso.errors import RunError
from daso.evaluate.metrics import recall_precision
from daso.export.facts import ModelFacts
from daso.files import read_json
from daso.train.calibration import read_calibration
from daso.train.model import Model

FEW_LABELS = 10
FEW_MEASURED = 20
WEAK_RECALL = 0.5


@dataclass(frozen=True)
class Check:
    """The comparison of an exported file with the original.

    Attributes:
        images: compared.
        what: they are.
        difference: largest, of a probability.
        runtime: that read the file.
        from_run: largest difference of a probability from the run, where that computes in another precision than the
            file; else None.
        same_class: images of which file and run say the same class; None likewise.
    """

    images: int
    what: str
    difference: float
    runtime: str
    from_run: float | None = None
    same_class: int | None = None


def model_card(
    folder: Path, model: Model, facts: ModelFacts, kind: str, name: str, check: Check
) -> str:
    """Return the card of a model.

    Args:
        folder: of its run.
        model, facts: of the run.
        kind: of the exported file.
        name: of the exported file.
        check: of the exported file against the original.
    """
    data = read_json(folder / "data.json")
    summary, confusion = _read(folder / "summary.json"), _read(folder / "confusion.json")
    counts = np.array(confusion["counts"]) if confusion else None
    parts = [
        _head(facts, kind, name),
        _use(facts, kind, name),
        _data(facts, data),
        _measured(facts, summary, confusion, counts, chosen=model.config.train.deploy == "best"),
        _calibration(folder, facts),
        _limits(facts, confusion, counts),
        _origin(facts, model, check),
    ]
    return "\n\n".join(parts) + "\n"


def _read(path: Path) -> dict[str, Any]:
    """Return the object in a file of the run folder, {} if the run has not got so far."""
    try:
        return read_json(path) if path.exists() else {}
    except RunError:
        return {}


def _text(value: object) -> str:
    """Return text that Markdown shows as it is."""
    plain = html.escape(str(value), quote=False).replace("\n", " ")
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in plain)


def _table(rows: Sequence[Sequence[object]]) -> str:
    head, *body = rows
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{100 * value:.1f}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(map(_text, names[:20]))
    return shown + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _head(facts: ModelFacts, kind: str, name: str) -> str:
    shape = " x ".join(map(str, facts.input_shape))
    dtype = "uint8 images" if facts.takes_images else "float32 vectors"
    channels = " (RGB)" if facts.input_shape[0] == 3 else " (grey)"
    rows = [
        ["", ""],
        ["file", f"`{name}`, {kind}"],
        ["input", f"{dtype}, N x {shape}{channels if facts.takes_images else ''}"],
        [
            "output",
            f"probabilities of {len(facts.class_names)} classes, N x {len(facts.class_names)}, float32",
        ],
        [
            "method",
            f"{_text(facts.method)}, network {_text(facts.provenance.get('network'))}, {facts.step:,} steps",
        ],
    ]
    return f"# A classifier of {_text(facts.provenance.get('data'))}\n\n" + _table(rows)


def _use(facts: ModelFacts, kind: str, name: str) -> str:
    if kind == "onnx":
        code = (
            "import json, onnxruntime\n"
            f'session = onnxruntime.InferenceSession("{name}")\n'
            'names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])\n'
            'probabilities = session.run(None, {"images": images})[0]'
        )
    elif kind == "torch":
        code = (
            "import json, torch\n"
            'files = {"facts.json": ""}\n'
            f'model = torch.export.load("{name}", extra_files=files).module()  # only a file that you trust\n'
            'names = json.loads(json.loads(files["facts.json"])["class_names"])\n'
            "probabilities = model(images)"
        )
    else:
        code = f'import daso\nprobabilities = daso.load("{name}").predict(images).probabilities'
    text = f"## Use\n\n```python\n{code}\n```"
    if not facts.takes_images or kind == "safetensors":
        return text
    _, height, width = facts.input_shape
    resize = (
        f"rotate it as its EXIF orientation says, put what is transparent on white, cut out the central square and "
        f"resize that to {width} x {height} (bilinear, antialiased: Pillow's `resize(({width}, {height}), "
        f"Image.Resampling.BILINEAR, box=...)`)"
        if height == width
        else f"only images of {width} x {height} pixels are what it was trained on"
    )
    return f"{text}\n\nScaling of pixel values and normalisation are inside. Images of another size: {resize}."


def _data(facts: ModelFacts, data: dict[str, Any]) -> str:
    unlabeled = data.get("unlabeled") or 0
    counts = np.array(facts.labeled_counts)
    return (
        f"## Data\n\nTrained on {counts.sum():,} labelled images of {len(counts)} classes and {unlabeled:,} unlabelled "
        f"ones (`{_text(facts.provenance.get('data'))}`). The most frequent class has {counts.max():,} labels, the "
        f"rarest {counts.min():,}. Held out: {data.get('holdout') or 0:,} images; test: {data.get('test') or 0:,}."
    )


def _measured(
    facts: ModelFacts,
    summary: dict[str, Any],
    confusion: dict[str, Any],
    counts: np.ndarray[Any, Any] | None,
    *,
    chosen: bool,
) -> str:
    if counts is None:
        rows: list[list[object]] = [["class", "labels"]]
        rows += [
            [_text(n), c] for n, c in zip(facts.class_names, facts.labeled_counts, strict=True)
        ]
        return (
            "## Quality\n\n**Not measured**: the run had no test and no hold-out images.\n\n"
            + _table(rows)
        )
    recall, precision = recall_precision(counts)
    where = "test images" if confusion["measured_on"] == "test" else "held-out images"
    present = recall[~np.isnan(recall)]
    lines = [
        f"## Quality\n\nOn {counts.sum():,} {where}: accuracy "
        f"{_percent(float(np.diag(counts).sum() / counts.sum()))}%, balanced accuracy (mean recall of the classes) "
        f"{_percent(float(present.mean()))}%."
    ]
    if summary.get("balanced_accuracy") is not None:
        lines.append(
            f"Of the run: balanced accuracy {_percent(summary['balanced_accuracy'])}% ({summary['measure']})."
        )
    if confusion["measured_on"] != "test":
        served = ["choose the network"] if chosen else []
        served += ["calibrate"] if facts.calibration_note is None else []
        if served:
            lines.append(
                f"The hold-out also served to {' and to '.join(served)}: new images may be answered less well."
            )
    rows = [["class", "labels", "recall %", "precision %", "measured on", "most often taken for"]]
    for k, name in enumerate(facts.class_names):
        others = counts[k].copy()
        others[k] = 0
        taken = ""
        if others.sum():
            taken = f"{_text(facts.class_names[int(others.argmax())])} ({int(others.max())})"
        row = [
            _percent(float(recall[k])),
            _percent(float(precision[k])),
            int(counts[k].sum()),
            taken,
        ]
        rows.append([_text(name), facts.labeled_counts[k], *row])
    return " ".join(lines) + "\n\n" + _table(rows)


def _calibration(folder: Path, facts: ModelFacts) -> str:
    calibration = read_calibration(folder, facts.step)
    if calibration.note:
        text = f"Probabilities are as the network gives them, not calibrated: {_text(calibration.note)}."
    else:
        rows = [
            ["held-out images", "before", "after"],
            [
                "negative log-likelihood",
                f"{calibration.loss_before:.4f}",
                f"{calibration.loss_after:.4f}",
            ],
            [
                "expected calibration error",
                f"{calibration.error_before:.4f}",
                f"{calibration.error_after:.4f}",
            ],
        ]
        text = (
            f"Logits are divided by the temperature {calibration.temperature:.3f}, fitted on "
            f"{calibration.images:,} held-out images; measured on the same:\n\n" + _table(rows)
        )
    prior = (
        "balanced classes" if facts.balanced_by else "the class frequencies of the labelled images"
    )
    return (
        f"## Calibration\n\n{text}\n\nThe probabilities are for {prior}. For other frequencies multiply each class by "
        f"its share there over its share here, and divide by the sum."
    )


def _limits(
    facts: ModelFacts, confusion: dict[str, Any], counts: np.ndarray[Any, Any] | None
) -> str:
    names, labels = facts.class_names, facts.labeled_counts
    points = [
        f"It knows {len(names)} classes: an image of anything else gets one of them too, perhaps with confidence.",
        "It was measured on images like those it was trained on. Other cameras, places or seasons can lower it all.",
    ]
    few = [name for name, count in zip(names, labels, strict=True) if count < FEW_LABELS]
    if few:
        points.append(f"Fewer than {FEW_LABELS} labelled images each: {_names(few)}.")
    if counts is not None:
        recall, _ = recall_precision(counts)
        weak = [name for name, value in zip(names, recall, strict=True) if value < WEAK_RECALL]
        unsure = [name for name, row in zip(names, counts, strict=True) if row.sum() < FEW_MEASURED]
        if weak:
            points.append(f"Found less than half of the time: {_names(weak)}.")
        if unsure:
            points.append(
                f"Measured on fewer than {FEW_MEASURED} images each, so the recall is a rough guess: {_names(unsure)}."
            )
    points.append("Nothing is known of attacks: images made to mislead it will.")
    return "## Limits\n\n" + "\n".join(f"* {point}" for point in points)


def _origin(facts: ModelFacts, model: Model, check: Check) -> str:
    origin = facts.provenance
    rows = [["", ""]]
    rows += [
        [name, f"`{origin[key]}`"]
        for name, key in (
            ("daso", "daso"),
            ("commit", "commit"),
            ("torch", "torch"),
            ("seed", "seed"),
            ("split", "split_fingerprint"),
        )
        if origin.get(key) is not None
    ]
    rows += [
        [f"images, {pool}", f"`{value}`"]
        for pool, value in (origin.get("images_fingerprints") or {}).items()
        if value
    ]
    precision = model.config.train.precision
    trained = ""
    if check.from_run is not None:
        trained = (
            f" The training computed in {precision}, this file in float32: of these images the run itself says the "
            f"same class of {check.same_class}, with probabilities up to {check.from_run:.2g} apart."
        )
    return (
        f"## Origin\n\n{_table(rows)}\n\nChecked after writing: {check.runtime} and the original differ by at most "
        f"{check.difference:.1e} in a probability on {check.images} {check.what}.{trained}\n\n"
        "## Licence\n\nThe licence of this model, and what the licence of its training images allows, is for their "
        "owner to state here."
    )
