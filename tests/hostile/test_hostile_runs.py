"""A run folder from elsewhere: any configuration is an error, or one that means what it says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from damage import QUICK, damaged, put, survives
from hypothesis import given
from hypothesis import strategies as st

from daso.cli import main
from daso.errors import DasoError
from daso.files import read_json
from daso.train.config import RunConfig

PLAIN = RunConfig(source="digits", method="fixmatch+daso").to_dict()
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
        st.sampled_from([-1, 0, 2**63, 1e308, "", "nan", "../..", "x" * 1000]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Return a configuration in which a few values are others, at any depth."""
    config = json.loads(json.dumps(PLAIN))
    for _ in range(draw(st.integers(1, 3))):
        place = config
        groups = [key for key, value in config.items() if isinstance(value, dict) and value]
        if groups and draw(st.booleans()):
            place = config[draw(st.sampled_from(groups))]
        place[draw(st.sampled_from(sorted(place)) | st.text(max_size=5))] = draw(VALUES)
    return dict(config)


@QUICK
@given(configurations())
def test_any_configuration(values: dict[str, Any]) -> None:
    config = survives(lambda: RunConfig.from_dict(values, "config.json"))
    if isinstance(config, RunConfig):
        again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())), "config.json")
        assert repr(again) == repr(config)
        assert len(config.fingerprint()) == 16


@QUICK
@given(st.one_of(damaged([json.dumps(PLAIN).encode()]), st.binary(max_size=50)))
def test_any_bytes_for_a_configuration(tmp_path: Path, content: bytes) -> None:
    file = put(tmp_path / "config.json", content)

    def read() -> RunConfig:
        return RunConfig.from_dict(read_json(file), str(file))

    survives(read)
    put(file, b"[" * 200_000)
    survives(read)


def test_hostile_configurations_in_a_run_folder(
    finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, wrong = finished_run / "config.json", []
    config = read_json(file)
    changes: list[dict[str, Any]] = [
        {"source": "/dev/zero"},
        {"source": "/etc/passwd"},
        {"source": "\0"},
        {"source": ["digits"]},
        {"method": "../../evil.py:Evil"},
        {"method": "os.system"},
        {"method": "x" * 100_000},
        {"data": 5},
        {"folders": {"unlabeled": 3}},
        {"folders": {"unlabeled": "/nowhere"}},
        {"size": "large"},
        {"size": 10**9},
    ]
    for verb, change in itertools.product(("resume", "evaluate"), changes):
        file.write_text(json.dumps({**config, **change}))
        try:
            status = main([verb, str(finished_run)])
        except DasoError:
            status = 1
        if "Traceback" in capsys.readouterr().err or not (status in (1, 2) or verb == "evaluate"):
            wrong.append((verb, change))
    assert not wrong
