"""Pictures for notebooks: figures that are nobody else's, from folders, lists and names."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from daso.errors import RunError
from daso.report import figures
from daso.report.runs import read_run

DOCUMENT = Path(__file__).parents[2] / "docs" / "watching.md"

ALL: dict[str, Callable[..., Figure]] = {
    "class_counts": figures.class_counts,
    "recall": figures.recall,
    "accuracy": figures.accuracy,
    "over_threshold": figures.over_threshold,
    "rare_pseudo_labels": figures.rare_pseudo_labels,
    "pseudo_label_bias": figures.pseudo_label_bias,
    "pseudo_labels": figures.pseudo_labels,
    "confusion": figures.confusion,
    "reliability": figures.reliability,
    "blending_weights": figures.blending_weights,
    "embedding_map": figures.embedding_map,
}


@pytest.mark.slow
def test_each_takes_a_folder_and_returns_a_figure_a_notebook_shows(finished_run: Path) -> None:
    for name, draw in ALL.items():
        for run in (finished_run, str(finished_run), read_run(finished_run)):
            figure = draw(run)
            assert isinstance(figure, Figure), name
            assert figure.axes[0].has_data(), name
        assert figure._repr_png_().startswith(b"\x89PNG"), name


def test_what_a_supervised_run_does_not_have_is_an_error_that_names_it(
    finished_supervised_run: Path,
) -> None:
    for name in (
        "over_threshold",
        "rare_pseudo_labels",
        "pseudo_label_bias",
        "pseudo_labels",
        "blending_weights",
    ):
        with pytest.raises(RunError, match=f"{finished_supervised_run}: no "):
            ALL[name](finished_supervised_run)
    for name in ("class_counts", "recall", "accuracy", "confusion", "reliability", "embedding_map"):
        assert ALL[name](finished_supervised_run).axes[0].has_data()


def test_names_group_runs_and_lists_go_by_method(
    finished_run: Path, finished_supervised_run: Path
) -> None:
    both = [finished_run, finished_supervised_run, finished_run]
    groups = figures.as_groups(both)
    assert {name: len(runs) for name, runs in groups.items()} == {
        "fixmatch+daso": 2,
        "supervised": 1,
    }
    figure = figures.accuracy(
        {"ours": [finished_run, finished_run], "theirs": finished_supervised_run}
    )
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "theirs"]
    measured = [
        100 * row["test"]["balanced_accuracy"] for row in read_run(finished_run).evaluations()
    ]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), measured)


def test_blending_weights_are_those_of_the_rows(finished_run: Path) -> None:
    run = read_run(finished_run)
    mesh = figures.blending_weights(run).axes[0].collections[0]
    written = np.array([row["pseudo_labels"]["blend_weight"] for row in run.evaluations()])
    order = np.argsort(-np.array(run.data["labeled_counts"]), kind="stable")
    np.testing.assert_allclose(
        np.asarray(mesh.get_array()).reshape(written.T.shape), written.T[order]
    )


def test_reliability_is_of_the_answers_that_the_metrics_measured(
    finished_run: Path, tmp_path: Path
) -> None:
    last = read_run(finished_run).summary["last"]
    for adjusted, metrics in ((False, last), (True, last["logit_adjusted"])):
        above, below = figures.reliability(finished_run, logit_adjusted=adjusted).axes
        error = float(re.findall(r"calibration error ([\d.]+)%", above.get_title(loc="left"))[0])
        assert error == pytest.approx(
            100 * metrics["calibration_error"], abs=0.15
        )  # confidences are float16
        heights = np.array([bar.get_height() for bar in below.patches])
        assert heights.sum() == read_run(finished_run).data["test"]
        right = sum(
            bar.get_height()
            / 100
            * heights[round((bar.get_x() + bar.get_width() / 2) * 15 / 100 - 0.5)]
            for bar in above.patches
        )
        assert right / heights.sum() == pytest.approx(metrics["accuracy"])
    (above, _) = figures.reliability([finished_run, finished_run]).axes
    assert "± 0.0%" in above.get_title(loc="left")
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    (other / "beliefs.safetensors").unlink()
    with pytest.raises(RunError, match=f"{other}: no answers"):
        figures.reliability([finished_run, other])
    (other / "beliefs.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(RunError, match="cannot be read"):
        figures.reliability(other)


def test_the_documented_example_runs(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    for name in sorted(set(re.findall(r'"runs/([^"]+)"', code))):
        shutil.copytree(finished_run, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(DOCUMENT), "exec"), {})
    assert (tmp_path / "recall.pdf").read_bytes().startswith(b"%PDF")


def test_every_picture_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in ALL)
    public = {
        name
        for name, value in vars(figures).items()
        if getattr(value, "__module__", "") == figures.__name__
    }
    internal = ("_", "as_", "is_", "has_")
    assert {name for name in public if not name.startswith(internal)} == set(ALL)
