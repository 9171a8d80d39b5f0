"""Wrong labels are found; those a person keeps are not shown again."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.labeling import NAMES, make_digits


def test_planted_label_errors_come_first(tmp_path: Path) -> None:
    digits = make_digits(tmp_path, each=20, wrong=10)
    session = digits.open()
    planted = {
        image for image in range(200) if session.describe(image)["label"] != digits.name(image)
    }
    assert len(planted) == 10
    found = session.doubtful(12)
    assert len(planted & {one["image"] for one in found}) >= 8
    first = next(one for one in found if one["image"] in planted)
    assert first["guess"] == digits.name(first["image"])
    assert first["guess"] in first["reason"]

    session.keep(first["image"])
    second = found[0] if found[0] != first else found[1]
    session.assign([second["image"]], digits.name(second["image"]))
    after = [one["image"] for one in session.doubtful(200)]
    assert first["image"] not in after
    session.undo(2)
    assert first["image"] in [one["image"] for one in session.doubtful(200)]
    session.journal.close()


def test_nothing_is_doubted_without_labels(tmp_path: Path) -> None:
    digits = make_digits(tmp_path, each=0, images=100)
    session = digits.open()
    assert session.doubtful(5) == []
    assert all(one["kind"] in ("typical", "discovery") for one in session.suggest(20))
    assert (
        session.state()["classes"][0] | {"name": NAMES[0], "labels": 0}
        == session.state()["classes"][0]
    )
    session.journal.close()
