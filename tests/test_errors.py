"""Checks of the values of options."""

from __future__ import annotations

import math
import shlex
from typing import Any

import pytest

from daso.errors import OptionError, check_choice, check_range, nearest, same_name, typed


def test_numbers_out_of_range_are_refused_with_the_range() -> None:
    for value, bounds, wanted in (
        (1.5, {"least": 0, "most": 1}, "from 0 to 1"),
        (-1, {"least": 0}, "at least 0"),
        (math.inf, {"least": 0}, "a finite number"),
        (math.nan, {"least": 0, "most": 1}, "from 0 to 1"),
        (0.0, {"above": 0}, "above 0"),
        (math.nan, {"above": 0}, "above 0"),
        (2, {"above": 0, "most": 1}, "above 0 and at most 1"),
    ):
        limits: dict[str, Any] = bounds
        with pytest.raises(
            OptionError, match=rf"^tau = {value} is out of range \(--tau\): it must be {wanted}$"
        ):
            check_range("tau", value, **limits)


def test_numbers_in_range_pass() -> None:
    for value in (0, 0.5, 1):
        check_range("tau", value, 0, 1)
    check_range("tau", 1e-300, above=0)


def test_invalid_choices_are_refused_with_the_choices() -> None:
    check_choice("blend", "fixed", ("linear", "fixed"))
    with pytest.raises(
        OptionError, match=r"blend = 'fixd' \(--blend\): invalid choice.*linear, fixed"
    ):
        check_choice("blend", "fixd", ("linear", "fixed"))


def test_names_that_look_alike_are_told_apart() -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert ascii(composed) in nearest(apart, ["dog", composed])
    assert nearest("dogs", ["dog"]) == " Did you mean 'dog'?"
    assert same_name(apart, ["dog", composed]) == composed
    assert same_name(apart, [composed, apart]) == apart
    assert same_name("emu", [composed]) == "emu"


def test_a_path_is_typed_as_a_shell_reads_it() -> None:
    assert typed("runs/plain-1") == "runs/plain-1"
    for path in (
        "my run",
        "it's",
        'a "b"',
        "$HOME `x` \\",
        "a;b|c&d",
        "*[?]",
        "",
        "new\nline",
        "ü",
    ):
        assert shlex.split(typed(path)) == [path]
    assert shlex.split(typed("-x y")) == ["./-x y"]
