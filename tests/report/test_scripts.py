"""Class names in any script, in figures."""

import warnings
from collections.abc import Iterator
from io import BytesIO

import pytest
from matplotlib import font_manager

from daso.report.figures import draw as plots


@pytest.fixture(autouse=True)
def _found_anew() -> Iterator[None]:
    cached = plots.fonts
    cached.cache_clear()
    yield
    cached.cache_clear()


def test_letters_that_no_font_has_are_drawn_without_warnings() -> None:
    figure, (axis,) = plots.make_figure(1)
    axis.set_xticks(range(3), ["猫", "ꙮ", "\U00012000"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("png", "svg", "pdf"):
            figure.savefig(BytesIO(), format=kind)


def test_installed_fonts_follow_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        font_manager, "get_font_names", lambda: ["Cmr10", "PingFang SC", "Noto Sans CJK JP"]
    )
    assert plots.fonts() == ["DejaVu Sans", "Noto Sans CJK JP", "PingFang SC"]


def test_every_text_of_a_picture_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "fonts", lambda: ["DejaVu Sans", "STIXGeneral"])
    figure, (axis,) = plots.make_figure(1)
    label = axis.set_xlabel("x")
    tick = axis.text(0.5, 0.5, "y")
    figure.savefig(BytesIO(), format="png")
    assert label.get_fontfamily() == tick.get_fontfamily() == ["DejaVu Sans", "STIXGeneral"]
