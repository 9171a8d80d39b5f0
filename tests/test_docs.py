"""The documentation is true: links lead somewhere, options exist, Python runs as it stands."""

from __future__ import annotations

import contextlib
import csv
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from command_options import all_options, options
from PIL import Image

from daso.catalog import ADDITIONS, METHODS
from daso.cli import VERBS, main
from daso.compose import Recipe
from daso.presets.demo import METHODS as METHODS_OF_THE_DEMO
from daso.presets.demo import SPLIT
from daso.train.config import RunConfig
from daso.train.options import TrainOptions
from daso.train.prepare import prepare
from daso.train.run import train_run

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
RESULTS = [ROOT / "LEADERBOARD.md", ROOT / "LOG.md", ROOT / "CHANGELOG.md"]


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language; '' for those without one, which are commands."""
    code = re.findall(
        r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [text for name, text in code if name == language]


def prose(page: Path) -> str:
    return re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MkDocs make it."""
    return re.sub(r"[ ]", "-", re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")))


def test_links_lead_somewhere() -> None:
    broken = []
    for page in [*PAGES, *RESULTS]:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(page)):
            path, _, name = target.partition("#")
            file = (page.parent / path) if path else page
            headings = (
                re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE)
                if file.suffix == ".md" and file.exists()
                else []
            )
            if not file.exists() or (name and name not in map(anchor, headings)):
                broken.append(f"{page.name}: {target}")
    assert not broken


def test_pages_that_the_code_names_exist() -> None:
    sources = [
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "src").rglob("*.html"),
        *ROOT.glob("examples/*.py"),
    ]
    missing = [
        f"{source}: {name}"
        for source in sources
        for name in re.findall(r"docs/\w+\.md", source.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    ]
    assert not missing


def test_every_page_is_on_the_site() -> None:
    """A page that the navigation lacks would be found by nobody."""
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [page.name for page in DOCS.glob("*.md") if f" {page.name}\n" not in navigation]


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the daso commands of a page, in blocks and in the text, as words without ``daso``."""
    for text in [*blocks(page, ""), *blocks(page, "bash")]:
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.split(" #")[0]) if "daso " in line else []
            if "daso" in words and not any("$" in word for word in words):
                yield words[words.index("daso") + 1 :]
    for line in re.findall(r"`daso ([^`]+)`", prose(page)):
        with contextlib.suppress(ValueError):  # words in the text that are cut by a quotation mark
            yield shlex.split(line)


def test_commands_have_the_options_that_the_pages_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    wrong, count = [], 0
    for page in PAGES:
        for words in commands(page):
            verb, *rest = words or [""]
            if not verb.islower() or verb.startswith("-"):
                continue  # a placeholder, or an option of daso itself
            if verb not in VERBS:
                wrong.append(f"{page.name}: daso {verb}")
                continue
            method = None
            if verb == "train":
                named = rest[rest.index("--method") + 1] if "--method" in rest else "fixmatch+daso"
                ours = re.fullmatch(r"[a-z+-]+", named)
                method = named if ours else "supervised"
            shown = options("data check" if verb == "data" else verb, method)
            for word in rest:
                option = word.partition("=")[0].rstrip(",.")
                if option.startswith("--") and "debiased.py" not in " ".join(rest):
                    count += 1
                    if option not in shown:
                        wrong.append(f"{page.name}: daso {verb} has no {option}")
    assert count > 50
    assert not wrong


def test_options_in_the_text_are_options_of_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    known = all_options()
    for script in [
        *ROOT.glob("benchmarks/*.py"),
        *ROOT.glob("examples/*.py"),
        *ROOT.glob("src/daso/nets/*.py"),
    ]:
        known |= set(re.findall(r"--[a-z][a-z-]+", script.read_text(encoding="utf-8")))
    elsewhere = {"--help", "--version", "--max-restarts", "--logdir", "--no-links", "--like"}
    wrong = [
        f"{page.name}: {option}"
        for page in PAGES
        for option in re.findall(r"`(--[a-z][a-z-]*)", prose(page))
        if option not in known | elsewhere
    ]
    assert not wrong


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the pages name: photographs, and short runs called as they call them."""
    folder = tmp_path_factory.mktemp("docs")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for name in ("new.jpg", "a.jpg", "b.jpg"):
        Image.fromarray(pixels).save(folder / name)
    for run, method in (("photos", "fixmatch+daso"), ("a-0", "fixmatch"), ("b-0", "fixmatch+daso")):
        for seed in range(1 if run == "photos" else 2):
            train = TrainOptions(
                steps=8, batch=8, network="small-4", seed=seed, device="cpu", evaluate_every=4
            )
            config = RunConfig("digits", method, split=SPLIT, train=train)
            for _ in train_run(prepare(config), folder / "runs" / run.replace("0", str(seed))):
                pass
    return folder


def run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the Python blocks of a page in order, in a folder; return the names that they leave."""
    monkeypatch.chdir(folder)
    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "page"}
    text = page.read_text(encoding="utf-8")
    for code in blocks(page, "python"):
        line = text[: text.index(code)].count("\n")
        exec(compile("\n" * line + code, str(page), "exec"), names)
    return names


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
def test_python_runs_as_it_stands(
    page: Path,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "onnx" in "".join(blocks(page, "python")):
        pytest.importorskip("onnxruntime")
        assert (
            main(
                ["export", str(workplace / "runs/photos"), "--out", str(workplace / "photos.onnx")]
            )
            == 0
        )
    names = run_page(page, workplace, monkeypatch)
    printed = capsys.readouterr().out
    if page.stem == "tutorial":
        assert list(names["runs"]) == ["supervised", "FixMatch", "FixMatch + DASO"]
        assert names["data"].class_counts.tolist() == [10, 7, 5, 4, 3, 2, 2, 1, 1, 1]
        assert "mean recall" in printed
    if page.stem == "estimator":
        assert float(printed.split()[0]) > 0.8
        model, labels = names["model"], names["labels"]
        assert model.class_counts_.tolist() == [20 - 2 * k for k in range(10)]
        truth = names["y"][names["train"]][labels < 0]
        assert np.mean(model.pseudo_labels_ == truth) > 0.8


def test_the_page_of_the_estimator_names_its_arguments() -> None:
    import inspect

    from daso import DASOClassifier

    arguments = inspect.signature(DASOClassifier).parameters
    text = (DOCS / "estimator.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named <= arguments.keys()
    assert arguments["method"].default in text


def test_the_tables_of_methods_name_every_part() -> None:
    for page in (ROOT / "README.md", DOCS / "choosing_a_method.md"):
        rows = [line for line in prose(page).splitlines() if line.startswith("|")]
        named = set(re.findall(r"`([a-z-]+)`", "".join(rows)))
        assert not {*METHODS, *ADDITIONS} - named


def test_the_numbers_of_the_readme_are_those_of_the_results() -> None:
    with (ROOT / "results/demo.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for measure in ("balanced_accuracy", "balanced_accuracy_logit_adjusted", "recall_few"):
        for method in METHODS_OF_THE_DEMO:
            if measure.endswith("adjusted") and Recipe.parse(method).balanced_by():
                continue  # it is not adjusted a second time
            values = [float(row[measure]) for row in rows if row["method"] == method]
            assert len(values) == 5
            assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in text


def test_files_and_folders_that_the_pages_name_exist() -> None:
    package, of_the_reader = ROOT / "src" / "daso", {"file", "my_file", "mine", "debiased"}
    wrong = [
        f"{page.name}: {name}"
        for page in PAGES
        for name in re.findall(r"`((?:\w+/)*\w+\.py)[`:]", prose(page))
        if Path(name).stem not in of_the_reader
        and not any((root / name).exists() for root in (package, package.parent, ROOT))
    ]
    assert not wrong
    wrong = [
        f"{page.name}: {name}"
        for page in (*PAGES, ROOT / "LEADERBOARD.md")
        for name in re.findall(r"python ((?:benchmarks|examples)/\w+\.py)", page.read_text())
        if not (ROOT / name).exists()
    ]
    assert not wrong
    tree = "\n".join(blocks(DOCS / "architecture.md", ""))
    folders = [path.parent for path in package.glob("*/**/__init__.py")]
    assert not [folder.name for folder in folders if f"{folder.name}/ " not in tree]


def test_rows_of_results_name_no_place_of_one_machine() -> None:
    places = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|mnt|data)/[^\s\"',]*")
    files = sorted((ROOT / "results").glob("*.csv"))
    found = {file.name: places.findall(file.read_text()) for file in files}
    assert files
    assert not {name: names[:3] for name, names in found.items() if names}
