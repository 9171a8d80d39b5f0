"""The report of a run as a file: what it says, and that nothing in it comes from elsewhere."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from report_page import ALL_SECTIONS, HOSTILE, Parsed, change, change_beliefs, make_hostile, report

from daso.files import CHECKSUM, Row
from daso.report.html.curves import _Picker
from daso.report.html.page import write_report
from daso.report.html.run import load_run
from daso.report.html.template import island, unbroken
from daso.report.wording import chosen_readout


@pytest.mark.usefixtures("with_map")
def test_a_complete_run_has_every_section_and_nothing_is_missing(finished_run: Path) -> None:
    page = report(finished_run)
    assert page.sections == ALL_SECTIONS
    assert "What is missing" not in page.text
    summary = json.loads((finished_run / "summary.json").read_text())
    assert f"{100 * summary['balanced_accuracy']:.1f}" in page.text
    assert "the median of the last 1 evaluations" not in page.text
    assert f"{100 * min(summary['per_class_recall']):.1f}" in page.text
    for tag in ("main", "nav", "header", "footer", "h1"):
        assert [name for name, _ in page.elements].count(tag) == 1


def test_the_page_is_one_file_that_asks_for_nothing(finished_run: Path) -> None:
    text = write_report(finished_run)[0].read_text(encoding="utf-8")
    page = Parsed(text)
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
    assert not re.search(r"@import|url\((?!data:)", text)
    policy = next(
        a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()) for script in scripts]
    assert len(scripts) == 2
    hashes = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    assert f"script-src {hashes}" in str(policy)
    assert "default-src 'none'" in str(policy)
    assert len(text) < 10_000_000


def test_pictures_have_words_for_those_who_do_not_see_them(finished_run: Path) -> None:
    text = write_report(finished_run)[0].read_text(encoding="utf-8")
    page = Parsed(text)
    for tag, attributes in page.elements:
        if tag == "img":
            assert attributes.get("alt")
        if tag in ("input", "select"):
            assert re.search(rf"<label>[^<]*<{tag}", text)
    charts = re.findall(r'<svg class="(?:chart|map)".*?</svg>', text, flags=re.DOTALL)
    assert len(charts) >= 12
    for chart in charts:
        tree = ElementTree.fromstring(chart)
        assert tree.attrib.get("role") == "img"
        assert tree.attrib.get("aria-label") or (tree[0].tag == "title" and tree[0].text)
        assert "nan" not in chart.lower().replace("nance", "")


def test_class_table(finished_run: Path) -> None:
    text = write_report(finished_run)[0].read_text(encoding="utf-8")
    table = text[text.index('id="class-table"') :]
    rows = re.findall(
        r"<tr>\s*<th scope=\"row\">(.*?)</tr>", table[: table.index("</table>")], flags=re.DOTALL
    )
    summary = json.loads((finished_run / "summary.json").read_text())
    data = json.loads((finished_run / "data.json").read_text())
    counts = json.loads((finished_run / "confusion.json").read_text())["counts"]
    assert len(rows) == 10
    for row in rows:
        name = row[: row.index("<")]
        k = data["class_names"].index(name)
        values = re.findall(r'data-value="([^"]*)"', row)
        assert float(values[0]) == data["labeled_counts"][k]
        assert float(values[1]) == data["unlabeled_counts"][k]
        assert float(values[3]) == pytest.approx(summary["per_class_recall"][k], abs=1e-5)
        others = [n for j, n in enumerate(counts[k]) if j != k]
        if max(others):
            taken = re.findall(r"<td>(\d) \((\d+)%\)</td>", row)[0]
            assert counts[k][data["class_names"].index(taken[0])] == max(others)
            assert int(taken[1]) == round(100 * max(others) / sum(counts[k]))


def test_csv_of_what_to_label_next(finished_run: Path) -> None:
    change_beliefs(finished_run, {"paths": {"0": "x"}})
    html, table = write_report(finished_run, finished_run / "out" / "page.html")
    assert (html.name, table.name) == ("page.html", "page-label-next.csv")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    run = load_run(finished_run)
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    assert [float(row["score"]) for row in rows] == sorted(
        (float(row["score"]) for row in rows), reverse=True
    )
    place = run.arrays["shown.place"][run.arrays["next"]]
    assert [int(row["unlabeled_index"]) for row in rows] == run.arrays["pool.index"][place].tolist()
    assert all(row["path"] == ("x" if row["unlabeled_index"] == "0" else "") for row in rows)
    for row, linear in zip(rows, run.arrays["pool.linear"][place, 0], strict=True):
        assert row["classifier_says"] == run.class_names[linear]
        assert row["classifier_says"] in row["reason"]
        assert (
            int(row["labeled_images_of_it"]) == run.data["labeled_counts"][int(row["rarer_class"])]
        )


def test_the_list_names_the_command_that_opens_the_page_on_it(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = f"daso label {finished_run}"
    monkeypatch.chdir(finished_run.parent)  # the page is read elsewhere
    finished_run = Path(finished_run.name)
    assert command not in write_report(finished_run)[0].read_text(encoding="utf-8")  # known classes
    truth = load_run(finished_run).arrays["pool.truth"]
    change_beliefs(finished_run, {}, **{"pool.truth": np.full_like(truth, -1)})
    assert command in write_report(finished_run)[0].read_text(encoding="utf-8")


def test_hostile_names_are_only_text(finished_run: Path) -> None:
    make_hostile(finished_run)
    html, table = write_report(finished_run)
    page = Parsed(html.read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.elements].count("script") == 3
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[3]):
        assert name in page.text
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert not any(str(value).startswith(("=", "+", "@", "-")) for value in row.values())


@pytest.mark.parametrize(
    ("readout", "said"),
    [
        (
            {"gain": 0.085, "gain_error": 0.066, "unlabeled_weight": 0.3, "patches": True},
            "Unlabeled images weigh 0.3 times the labels in the mixture: they lower the balanced "
            "log-loss by 0.09 ± 0.07, by cross-validation on the labels. Patches are joined with "
            "the embeddings.",
        ),
        (
            {"gain": -0.05, "gain_error": 0.01, "unlabeled_weight": None, "mirrorings": 1},
            "Unlabeled images are left out of the mixture: they would raise the balanced log-loss "
            "by 0.05 ± 0.01, by cross-validation on the labels. Features are averaged with those "
            "of the mirror image.",
        ),
        (
            {"gain": 0.0, "gain_error": 0.0, "mirrorings": 3, "patches": False},
            "The readout is fitted to the labels alone. Features are averaged with those of 3 "
            "mirror images. Patches are not joined with the embeddings.",
        ),
    ],
)
def test_a_page_says_what_the_readout_chose(finished_run: Path, readout: Row, said: str) -> None:
    assert chosen_readout({}) == chosen_readout({"unlabeled_prior": [0.5, 0.5]}) == ""
    file = finished_run / "metrics.jsonl"
    first, *others = file.read_text().splitlines()
    row = {**json.loads(first), "readout": readout}
    row.pop(CHECKSUM)
    file.write_text("\n".join([json.dumps(row), *others]) + "\n")
    assert said == chosen_readout(readout)
    assert said in report(finished_run).text


def test_json_cannot_end_its_element() -> None:
    value = {"a": "</script><!-- & \u2028"}
    text = str(island(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_numbers_that_would_be_balanced_twice_are_left_out(finished_run: Path) -> None:
    before = report(finished_run).text
    assert "logit-adjusted" in before
    assert "adjusted %" in before
    change(finished_run / "config.json", method="fixmatch+la+daso")
    change(finished_run / "data.json", method={"balanced_by": ["la"], "slots": []})
    page = report(finished_run)
    assert "No logit-adjusted numbers: la balanced the classifier in training" in page.text
    assert page.text.count("logit-adjusted") == 1
    assert "adjusted %" not in page.text
    change(finished_run / "config.json", method="fixmatch")
    change(finished_run / "data.json", method={"balanced_by": [], "slots": []})
    config = json.loads((finished_run / "config.json").read_text())
    change(
        finished_run / "config.json",
        train={**config["train"], "labeled_sampling": "class-balanced"},
    )
    assert (
        "No logit-adjusted numbers: class-balanced sampling balanced" in report(finished_run).text
    )


@pytest.mark.slow
def test_a_thousand_classes_fit(finished_run: Path) -> None:
    names = [f"class number {k}" for k in range(1000)]
    change(finished_run / "data.json", class_names=names, labeled_counts=list(range(1000, 0, -1)))
    for name in ("summary.json", "confusion.json", "beliefs.safetensors"):
        (finished_run / name).unlink()
    share = (np.arange(1000, 0, -1) / 500500).round(6).tolist()
    part = {"distribution": share, "truth": share, "recall": share, "precision": share}
    labels = {"linear": part, "semantic": part, "final": part, "blend_weight": share}
    rows = [{"event": "evaluate", "step": 10 * t, "pseudo_labels": labels} for t in range(80)]
    (finished_run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = write_report(finished_run)[0]
    assert "pseudo_labels" in Parsed(path.read_text(encoding="utf-8")).sections
    assert path.stat().st_size < 4_000_000


def test_few_images_to_measure_on_are_told(finished_run: Path) -> None:
    change(finished_run / "data.json", test=9, test_counts=[1, 0, *[1] * 8])
    text = report(finished_run).text
    assert "All in %, on 9 test images" in text
    assert "fewest has 1 of these images" in text
    assert "few images" in text
    assert "not measured: 1." in text


def test_the_temperature_is_told(finished_run: Path) -> None:
    fitted = {"temperature": 1.57, "images": 50, "error_before": 0.2, "error_after": 0.1234}
    (finished_run / "calibration.json").write_text(json.dumps(fitted))
    text = report(finished_run).text
    assert "daso predict divides the logits by a temperature of 1.57" in text
    assert "fitted on 50 hold-out images" in text
    assert "from 20.0% to 12.3%" in text


def test_a_supervised_run(finished_supervised_run: Path) -> None:
    page = report(finished_supervised_run)
    assert "pseudo_labels" not in page.sections
    assert "galleries" in page.sections  # by the mean features of the labeled images
    assert "mean features of each class's labeled images" in page.text
    assert "What is missing" not in page.text


def test_many_classes_without_truth(many_classes: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(many_classes, tmp_path / "run"))
    page = report(folder)
    assert "pixel-matrix" in [attributes.get("id") for _, attributes in page.elements]
    assert "the truth is unknown" in page.text
    assert "Recall of the pseudo-labels" not in page.text
    assert "The truth is known here" not in page.text


def test_names_that_are_not_utf_8(finished_run: Path) -> None:
    data = json.loads((finished_run / "data.json").read_text())
    names = ["h\udcf6nd", "שלום", *data["class_names"][2:]]
    change(finished_run / "data.json", class_names=names)
    indices = load_run(finished_run).arrays["pool.index"].tolist()
    change_beliefs(finished_run, {"paths": {str(i): f"caf\udce9-{i}.png" for i in indices}})
    page, table = write_report(finished_run)
    text = page.read_text(encoding="utf-8")
    assert r"h\xf6nd" in text
    assert r"caf\xe9-" in text
    assert b"caf\xe9-" in table.read_bytes()  # as the file system has it
    assert "caf%E9-" in text


def test_options_are_not_broken_and_weights_are_no_shares() -> None:
    assert unbroken("use <b> --skip-bad.") == (
        'use &lt;b&gt; <span class="option">--skip-bad</span>.'
    )
    picker = _Picker(1.0, {"all": ("all", [0])})
    curve = {"weight": (np.array([0.0, 1.0]), np.array([[0.0], [1.0]]))}
    picker.add("Share", "", curve)
    picker.add("Weight", "", curve, percent=False)
    shares, weights = (str(figure["drawing"]) for figure in picker.figures)
    assert "100%" in shares
    assert "%" not in weights
