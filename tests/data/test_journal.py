"""The journal of daso label: nothing is lost, nothing is half written, and undo has no end."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daso.data.journal import Entry, Journal, journal_path
from daso.data.labeling import open_for_labeling
from daso.errors import DataError, InUseError, OptionError, RunError


def test_entries_are_on_disk_before_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "daso-labels.jsonl"
    with Journal.open(path) as journal:
        assert not path.exists()
        entry = journal.append(
            "label",
            image="a.jpg",
            checksum="00",
            label="cat",
            guess="dog",
            probability=0.4,
            seconds=1.5,
        )
        assert entry.number == 1
        assert entry.time.startswith("20")
        assert Journal.read(path).entries == [entry] == list(journal.entries)
        journal.append(
            "round", round=1, details={"labels": [3, 4], "balanced_accuracy": float("nan")}
        )
    read = Journal.read(path)
    assert read.entries[1].details == {"labels": [3, 4], "balanced_accuracy": None}
    assert read.checksum != Journal.read(path, 1).checksum
    with pytest.raises(RunError, match="not open"):
        read.append("skip", image="a.jpg")


def test_decisions_follow_chains_of_undo(tmp_path: Path) -> None:
    def standing(journal: Journal) -> list[tuple[str, str, str | None]]:
        return [(image, e.action, e.label) for image, e in journal.decisions().items()]

    with Journal.open(tmp_path / "j.jsonl") as journal:
        states = [standing(journal)]
        for action, image, label in (
            ("label", "a", "cat"),
            ("label", "a", "dog"),
            ("skip", "b", None),
            ("class", None, "fox"),
            ("none", "b", None),
            ("keep", "a", "dog"),
            ("skip", "a", None),
            ("label", "c", "fox"),
        ):
            journal.append(action, image=image, label=label)  # type: ignore[arg-type]
            states.append(standing(journal))
        assert states[-1] == [("b", "none", None), ("a", "keep", "dog"), ("c", "label", "fox")]
        journal.append("round", round=1)
        for state in reversed(states[:-1]):
            assert journal.undo() is not None
            assert standing(journal) == state
            assert standing(Journal.read(journal.path)) == state
        assert journal.undo() is None
        journal.append("label", image="a", label="cat")
        assert journal.decisions()["a"].label == "cat"
        assert journal.undo() is not None
        assert not journal.decisions()


def test_a_line_cut_anywhere_loses_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal.open(path) as journal:
        journal.append("label", image="a", label="cat")
        first = path.stat().st_size
        journal.append("label", image="b", label="dog")
    whole = path.read_bytes()
    for size in range(first, len(whole) + 1):
        path.write_bytes(whole[:size])
        expected = {"a", "b"} if size >= len(whole) - 1 else {"a"}
        assert Journal.read(path).decisions().keys() == expected
        with Journal.open(path) as journal:
            assert journal.append("label", image="c", label="cat").number == len(expected) + 1
        assert Journal.read(path).decisions().keys() == expected | {"c"}
        assert path.read_bytes().startswith(whole[:first])
    path.write_bytes(whole[:first] + bytes(50))
    assert Journal.read(path).decisions().keys() == {"a"}


def test_empty_lines_that_an_editor_left_are_no_entries(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    with Journal.open(path) as journal:
        for image in "ab":
            journal.append("label", image=image, label="cat")
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\n" + first + b"\r\n" + second + b"\n\n")
    assert Journal.read(path).decisions().keys() == {"a", "b"}
    assert Journal.read(path, 1).decisions().keys() == {"a"}
    with Journal.open(path) as journal:
        assert journal.append("label", image="c", label="cat").number == 3
    assert Journal.read(path).decisions().keys() == {"a", "b", "c"}
    path.write_bytes(first + b"\n" + second.replace(b'"b"', b'"x"'))
    with pytest.raises(RunError, match="line 3"):
        Journal.read(path)


def test_other_damage_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    good = b'{"number": 1, "action": "label", "image": "a", "label": "cat", "later": "ignored"}\n'
    for line in (
        b"{",
        b"[]",
        b'{"number": 2, "action": "label", "image": "b", "label": "dog"} x',
        b'{"number": 3, "action": "label", "image": "b", "label": "dog"}',
        b'{"number": 2, "action": "paint", "image": "b"}',
        b'{"number": 2, "action": "label", "image": 7, "label": "dog"}',
        b'{"number": 2, "action": "label", "image": "b"}',
        b'{"number": 2, "action": "none"}',
        b'{"number": 2, "action": "undo", "undoes": 2}',
        b'{"number": 2, "action": "undo", "undoes": true}',
        b'{"number": 2, "action": "round", "details": []}',
        b'{"number": 2, "action": "apply", "image": "b", "details": {}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ):
        path.write_bytes(good + line + b"\n" + good.replace(b": 1", b": 3"))
        for start in (Journal.read, Journal.open):
            with pytest.raises(RunError, match=r"j\.jsonl, line 2"):
                start(path)
        path.write_bytes(good)
        Journal.open(path).close()  # the lock was released


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    code = f"""
import sys
from pathlib import Path
from daso.data.journal import Journal
journal = Journal.open(Path({str(path)!r}))
journal.append("label", image="a", label="cat")
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(InUseError, match=str(other.pid)):
            Journal.open(path)
        assert Journal.read(path).decisions().keys() == {"a"}
        other.kill()  # a kill loses nothing and leaves no lock
    with Journal.open(path) as journal:
        assert journal.decisions().keys() == {"a"}
        with pytest.raises(InUseError):
            Journal.open(path)


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_neither_half_a_line_nor_a_decision(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j.jsonl") as journal:
        journal.append("label", image="a", label="cat")
        before = journal.path.read_bytes()
        with _files_of_at_most(len(before) + 40), pytest.raises(RunError, match="cannot write"):
            journal.append("label", image="b", label="dog")
        assert journal.path.read_bytes() == before
        assert journal.decisions().keys() == {"a"}
        assert len(journal.entries) == 1
        pair = [("label", {"image": name, "label": "x" * 15}) for name in "bc"]
        with _files_of_at_most(len(before) + 150), pytest.raises(RunError, match="cannot write"):
            journal.extend(pair)  # type: ignore[arg-type]
        assert journal.path.read_bytes() == before
        assert [entry.number for entry in journal.extend(pair)] == [2, 3]  # type: ignore[arg-type]
    assert list(Journal.read(journal.path).decisions()) == ["a", "b", "c"]


def test_a_journal_that_another_program_changed_is_not_written_over(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j.jsonl") as journal:
        journal.append("label", image="a", label="cat")
        content = journal.path.read_bytes()
        for changed in (content + content, b""):
            journal.path.write_bytes(changed)
            with pytest.raises(RunError, match="changed"):
                journal.append("label", image="b", label="dog")
            assert journal.path.read_bytes() == changed


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="label a copy"):
        Journal.open(tmp_path / "file" / "j.jsonl")


def test_threads_write_whole_lines_with_numbers_of_their_own(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "j.jsonl") as journal:

        def work(name: str) -> None:
            for number in range(20):
                journal.append("label", image=f"{name}{number}", label="cat")
                journal.decisions()
                if number % 5 == 4:
                    journal.undo()

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        lines = journal.path.read_bytes().splitlines()
        assert [json.loads(line)["number"] for line in lines] == list(range(1, 97))
        assert Journal.read(journal.path).decisions() == journal.decisions()
        assert len(journal.decisions()) == 64


def test_names_of_any_kind_come_back_as_they_are(tmp_path: Path) -> None:
    names = [
        "a\udce9.jpg",
        "cafe\u0301.jpg",
        "$HOME <b>.jpg",
        'x"\n,\\.jpg',
        "\u2028.jpg",
        "../up.jpg",
    ]
    with Journal.open(tmp_path / "j.jsonl") as journal:
        for name in names:
            journal.append("label", image=name, label=f"class <{name[:1]}>")
    assert list(Journal.read(journal.path).decisions()) == names
    assert b"\n" not in journal.path.read_bytes().splitlines()[3]


def test_the_journal_lies_in_the_folder_or_beside_the_file(tmp_path: Path) -> None:
    assert journal_path(tmp_path) == tmp_path / "daso-labels.jsonl"
    assert journal_path(tmp_path / "x.npz") == tmp_path / "x.npz.daso-labels.jsonl"
    assert Journal.read(tmp_path / "none.jsonl").entries == []
    assert Entry(1, "skip").round == 0


def test_sources_without_a_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="name"):
        open_for_labeling("digits")
    with pytest.raises(DataError, match="no such"):
        open_for_labeling(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no images"):
        open_for_labeling(str(tmp_path))
    assert not journal_path(tmp_path).exists()
