"""The report of a run as a file: what it says, that nothing in it comes from elsewhere, and damaged run folders."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from daso.cli import main
from daso.data.arrays import from_arrays
from daso.data.source import Source
from daso.errors import RunError
from daso.evaluate.metrics import calibration_error
from daso.report.embedding import embed
from daso.report.html.folder import load_run
from daso.report.html.maps import frequency_color
from daso.report.html.overview import confusion_counts
from daso.report.html.page import write_report
from daso.report.html.svg import Scale
from daso.report.html.template import island
from daso.report.reliability import reliability_bins
from daso.report.uncertainty import interval
from daso.train.prepare import prepare
from daso.train.run import train_run
from tests.conftest import MakeConfig

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "{{ 7 * 7 }}",
    '=HYPERLINK("http://example.org")',
    "' onmouseover='document.title=1",
    "<!-- --><svg onload=alert(1)>",
    "\u2028line\u2029\x00",
    "ß" * 80,
    "&lt;b&gt; & co",
)


@pytest.fixture(autouse=True)
def quick_map(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare all tests but that of a complete run the seconds that a map takes."""
    if "complete_run_has" not in request.node.name:
        monkeypatch.setattr("daso.report.embedding.embed", lambda points: points[:, :2])


class Parsed(HTMLParser):
    """Elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, white space made one blank."""
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def sections(self) -> list[str]:
        """The identifiers of the sections."""
        return [str(attributes["id"]) for tag, attributes in self.elements if tag == "section"]


def report(folder: Path) -> Parsed:
    return Parsed(write_report(folder)[0].read_text(encoding="utf-8"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_beliefs(folder: Path, about: dict[str, Any], **arrays: np.ndarray) -> None:
    path = folder / "beliefs.safetensors"
    with safe_open(path, framework="numpy") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["beliefs"])
    path.write_bytes(safetensors.numpy.save(old | arrays, {"beliefs": json.dumps(header | about)}))


def test_a_complete_run_has_every_section_and_nothing_is_missing(finished_run: Path) -> None:
    page = report(finished_run)
    wanted = "overview classes pseudo_labels galleries label_next map confusion calibration training about"
    assert page.sections == wanted.split()
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
    script = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in str(policy)
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
        assert int(row["labeled_images_of_it"]) == run.data["labeled_counts"][int(row["rarer_class"])]


def make_hostile(folder: Path) -> None:
    change(folder / "data.json", class_names=list(HOSTILE))
    confusion = json.loads((folder / "confusion.json").read_text())
    (folder / "confusion.json").write_text(json.dumps(confusion | {"class_names": list(HOSTILE)}))
    change(folder / "config.json", method=HOSTILE[0], source=HOSTILE[2])
    arrays = load_run(folder).arrays
    paths = {str(i): HOSTILE[i % len(HOSTILE)] for i in arrays["pool.index"].tolist()}
    change_beliefs(folder, {"paths": paths})


def test_hostile_names_are_only_text(finished_run: Path) -> None:
    make_hostile(finished_run)
    html, table = write_report(finished_run)
    page = Parsed(html.read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.elements].count("script") == 2
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    for name in (HOSTILE[0], HOSTILE[1], HOSTILE[3]):
        assert name in page.text
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert not any(str(value).startswith(("=", "+", "@", "-")) for value in row.values())


def test_json_cannot_end_its_element() -> None:
    value = {"a": "</script><!-- & \u2028"}
    text = str(island(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_a_running_training(finished_run: Path) -> None:
    for name in ("summary.json", "confusion.json", "beliefs.safetensors"):
        (finished_run / name).unlink()
    lines = (finished_run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (finished_run / "metrics.jsonl").write_text("".join(lines[:5]) + lines[5][:40])
    page = report(finished_run)
    assert page.sections == ["overview", "classes", "pseudo_labels", "training", "about"]
    assert "The last line of metrics.jsonl was cut off" in page.text
    assert f"'daso report {finished_run} --refresh' makes it from the last checkpoint" in page.text
    assert "the training writes it now and then" in page.text
    assert re.search(r"up to step \d+ of 20", page.text)
    assert "the latest" in page.text


def test_a_running_training_shows_what_it_believed_when_it_last_wrote_it(finished_run: Path) -> None:
    counted = json.loads((finished_run / "confusion.json").read_text())["counts"]
    for name in ("summary.json", "confusion.json"):
        (finished_run / name).unlink()
    change_beliefs(finished_run, {"step": 15})
    page = report(finished_run)
    wanted = "overview classes pseudo_labels galleries label_next map confusion calibration training about"
    assert page.sections == wanted.split()
    assert "What is said of single images is as of step 15" in page.text
    for said in ("test images, at step 15. Rows:", "unlabelled images at step 15", "Agreement at step 15"):
        assert said in page.text
    assert "at the end" not in page.text
    run = load_run(finished_run)
    assert run.measured_on == "test"
    counts = confusion_counts(run)
    assert counts is not None
    assert counts.tolist() == counted


def test_numbers_that_would_be_balanced_twice_are_left_out(finished_run: Path) -> None:
    before = report(finished_run).text
    assert "logit-adjusted" in before
    assert "adjusted %" in before
    change(finished_run / "config.json", method="fixmatch+la+daso")
    page = report(finished_run)
    assert "No logit-adjusted numbers: la balanced the classifier in training" in page.text
    assert page.text.count("logit-adjusted") == 1
    assert "adjusted %" not in page.text
    change(finished_run / "config.json", method="fixmatch")
    config = json.loads((finished_run / "config.json").read_text())
    change(finished_run / "config.json", train={**config["train"], "labeled_sampling": "class-balanced"})
    assert "No logit-adjusted numbers: class-balanced sampling balanced" in report(finished_run).text


def test_before_the_first_row(finished_run: Path) -> None:
    for name in ("summary.json", "confusion.json", "beliefs.safetensors", "metrics.jsonl"):
        (finished_run / name).unlink()
    page = report(finished_run)
    assert page.sections == ["overview", "classes", "about"]
    assert "Nothing has been measured yet" in page.text


def test_a_complete_run_without_beliefs_says_how_to_get_them(finished_run: Path) -> None:
    (finished_run / "beliefs.safetensors").unlink()
    page = report(finished_run)
    assert f"'daso report {finished_run} --refresh' makes it from the last checkpoint" in page.text
    assert "the training writes it now and then" not in page.text
    assert "galleries" not in page.sections
    assert "confusion" in page.sections


def test_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="is no run folder"):
        write_report(tmp_path)
    assert main(["report", str(tmp_path)]) == 1
    assert "is no run folder" in capsys.readouterr().err


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
    assert "The class with the fewest has 1 of these images" in text
    assert "That is few" in text
    assert "Not measured, for want of such images: 1." in text


def test_the_temperature_is_told(finished_run: Path) -> None:
    fitted = {"temperature": 1.57, "images": 50, "error_before": 0.2, "error_after": 0.1234}
    (finished_run / "calibration.json").write_text(json.dumps(fitted))
    assert (
        "A temperature of 1.57, fitted on 50 hold-out images, takes the error there from 20.0% to 12.3%"
        in (report(finished_run).text)
    )


FILES = ("config.json", "data.json", "environment.json", "summary.json", "confusion.json", "calibration.json")
DAMAGE = (b"", b"[]", b"{}", b'{"class_names": 3, "counts": 1}', b'{"a": ', b"\xff\xfe\x00", b"[" * 100_000)


@pytest.mark.parametrize("name", [*FILES, "metrics.jsonl", "beliefs.safetensors"])
@pytest.mark.parametrize("content", [*DAMAGE, None], ids=lambda c: "gone" if c is None else repr(c[:12]))
def test_a_damaged_file_costs_what_depends_on_it(
    finished_run: Path, name: str, content: bytes | None
) -> None:
    path = finished_run / name
    path.unlink() if content is None else path.write_bytes(content)
    page = report(finished_run)
    assert {"overview", "about"} <= set(page.sections)
    readable = content in (b"{}", DAMAGE[3]) and name != "beliefs.safetensors"
    optional = ("confusion.json", "calibration.json")
    if not readable and not (content is None and name in optional):
        assert name in page.text[page.text.index("What is missing") :][:1500]
    if name != "beliefs.safetensors" and name != "data.json":
        assert "galleries" in page.sections


def test_a_damaged_line_in_the_middle(finished_run: Path) -> None:
    path = finished_run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"event": "train"\n', b"null\n", *lines[2:]]))
    page = report(finished_run)
    assert f"2 of {len(lines) + 2} lines of metrics.jsonl are damaged (line 3, 4)" in page.text
    assert "training" in page.sections


def mutate(value: Any, chance: random.Random, rate: float) -> Any:
    """Return a JSON value of which some parts are replaced by something else."""
    if chance.random() < rate:
        return chance.choice([None, -1, 0, 1e30, "x", [], {}, [1, "a"], True, "1", {"a": []}])
    if isinstance(value, dict):
        return {key: mutate(item, chance, rate) for key, item in value.items() if chance.random() > rate / 2}
    if isinstance(value, list):
        return [mutate(item, chance, rate) for item in value if chance.random() > rate / 2]
    return value


@pytest.mark.parametrize("seed", range(12))
def test_json_that_does_not_say_what_it_should(finished_run: Path, seed: int) -> None:
    chance = random.Random(seed)
    for name in FILES:
        path = finished_run / name
        path.write_text(json.dumps(mutate(json.loads(path.read_text()), chance, 0.02)))
    path = finished_run / "metrics.jsonl"
    rows = [mutate(json.loads(line), chance, 0.02) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "about" in report(finished_run).sections


@pytest.mark.parametrize(
    ("name", "change_of", "section"),
    [
        ("pool.linear", lambda v: v * 0 + 99, "Images"),
        ("pool.linear", lambda v: v[:3], "Images"),
        ("disagreeing", lambda v: v + 10_000, "Images"),
        ("thumbnails.offsets", lambda v: v[:5], "Images"),
        ("next", lambda v: v - 10_000, "What to label next"),
        ("map.place", lambda v: v[:7], "Map"),
        ("map.label", lambda v: v * 0 - 5, "Map"),
        ("test.confidence", lambda v: v * np.float16("nan"), "Calibration"),
        ("test.answer", lambda v: v[:7], "Calibration"),
    ],
)
def test_beliefs_that_do_not_fit_each_other(
    finished_run: Path, name: str, change_of: Callable[[np.ndarray], np.ndarray], section: str
) -> None:
    change_beliefs(finished_run, {}, **{name: change_of(load_run(finished_run).arrays[name])})
    page = report(finished_run)
    assert f"The section '{section}' is left out" in page.text
    assert {"overview", "classes", "confusion", "about"} <= set(page.sections)


def test_beliefs_of_another_version(finished_run: Path) -> None:
    change_beliefs(finished_run, {"version": 99})
    assert "is not one that this version of daso reads" in report(finished_run).text


def test_a_supervised_run(finished_supervised_run: Path) -> None:
    page = report(finished_supervised_run)
    assert "pseudo_labels" not in page.sections
    assert "galleries" in page.sections  # by the mean features of the labelled images
    assert "mean features of each class's labelled images" in page.text
    assert "What is missing" not in page.text


@pytest.fixture(scope="module")
def many_classes(tiny_config: MakeConfig, digits: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of 40 classes, digits in four positions, whose unlabelled images nobody knows."""
    assert digits.test is not None
    images = np.concatenate([np.rot90(digits.train.images[:400], turn, (2, 3)) for turn in range(4)])
    labels = np.concatenate([digits.train.labels[:400] + 10 * turn for turn in range(4)])
    test = np.concatenate([np.rot90(digits.test.images[:200], turn, (2, 3)) for turn in range(4)])
    answers = np.concatenate([digits.test.labels[:200] + 10 * turn for turn in range(4)])
    seen = np.array([np.sum(labels[:i] == k) for i, k in enumerate(labels)])
    hidden = np.where(seen < 2 + (40 - labels) // 8, labels, -1)
    source = from_arrays(images, hidden, test_images=test, test_labels=answers)
    folder = tmp_path_factory.mktemp("many") / "run"
    config = tiny_config("fixmatch+daso", steps=12, evaluate_every=4, method_options={"warmup_steps": 2})
    list(train_run(prepare(dataclasses.replace(config, split=type(config.split)()), source), folder))
    return folder


def test_many_classes_without_truth(many_classes: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(many_classes, tmp_path / "run"))
    page = report(folder)
    assert "pixel-matrix" in [attributes.get("id") for _, attributes in page.elements]
    assert "the truth is not known" in page.text
    assert "Recall of the pseudo-labels" not in page.text
    assert "The truth is known here" not in page.text


def test_reliability_against_a_loop() -> None:
    random_state = np.random.default_rng(0)
    probs = random_state.dirichlet(np.full(4, 0.6), 500)
    labels = random_state.integers(0, 4, 500)
    confidence, correct = probs.max(1), probs.argmax(1) == labels
    edges, accuracy, mean, counts = reliability_bins(confidence, correct)
    for i in range(15):
        inside = [
            j
            for j in range(500)
            if edges[i] <= confidence[j] < edges[i + 1] or (i == 14 and confidence[j] == 1)
        ]
        assert counts[i] == len(inside)
        if inside:
            assert accuracy[i] == pytest.approx(np.mean([correct[j] for j in inside]))
            assert mean[i] == pytest.approx(np.mean([confidence[j] for j in inside]))
    error = (counts * np.abs(accuracy - mean)).sum() / 500
    assert error == pytest.approx(calibration_error(probs, labels))


def test_the_interval_holds_balanced_accuracy_in_95_of_100_cases() -> None:
    random_state = np.random.default_rng(1)
    recall, counts = np.array([0.9, 0.7, 0.4, 0.2]), np.array([400.0, 60.0, 25.0, 12.0])
    inside = 0
    for _ in range(2000):
        measured = random_state.binomial(counts.astype(int), recall) / counts
        half = interval(measured, counts)
        assert half is not None
        inside += abs(measured.mean() - recall.mean()) <= half
    assert 0.93 < inside / 2000 < 0.985


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.02, 0.7), (1, 5000), (3, 90)])
def test_ticks_are_round_and_within_the_scale(low: float, high: float, log: bool) -> None:
    scale = Scale(low, high, 0, 100, log)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(low * 0.99 <= tick <= high * 1.01 for tick in ticks)
    assert [scale(tick) for tick in ticks] == sorted(scale(tick) for tick in ticks)
    assert (scale(low), scale(high)) == (0, 100)
    if not log:
        assert np.diff(ticks) == pytest.approx(ticks[1] - ticks[0])
    assert all(float(f"{tick:.2g}") == pytest.approx(tick) for tick in ticks)


def test_a_map_keeps_groups_together() -> None:
    random_state = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 30)
    points = 6 * np.eye(8)[groups] + random_state.normal(size=(120, 8)) * 0.3
    places = embed(points)
    assert places.min() == 0
    assert places.max() == 1
    distance = np.linalg.norm(places[:, None] - places[None], axis=2) + 9 * np.eye(120)
    assert (groups[distance.argmin(1)] == groups).mean() == 1


def test_colours_run_from_the_frequent_to_the_rare() -> None:
    assert frequency_color(0, 10) == "#0072b2"
    assert frequency_color(9, 10) == "#d55e00"
    assert len({frequency_color(rank, 100) for rank in range(100)}) == 100
