"""Downloads, against a server on this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daso.data.benchmarks import download as downloading
from daso.data.benchmarks.download import REMOTES, Remote, cache_folder, download, fetch
from daso.errors import DataError

CONTENT = bytes(range(256)) * 8000
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", str(2 * len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address of a server, and the folder that it serves."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file.bin").write_bytes(CONTENT)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_right_checksum(served: tuple[str, Path], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    for checksum in (MD5, SHA256):
        folder = tmp_path / "deep" / checksum[:3]
        remote = Remote(served[0] + "file.bin", checksum)
        target = fetch(remote, folder, lambda *state: seen.append(state))
        assert target == folder / "file.bin"
        assert target.read_bytes() == CONTENT
        assert list(folder.iterdir()) == [target]
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))
    assert all(0 < done <= total for _, done, total in seen if total is not None)


def test_nothing_stays_when_something_is_wrong(served: tuple[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "target"
    for name, checksum, message in (
        ("file.bin", "md5:0", "md5:0.*not kept"),
        ("short", MD5, "could not be fetched"),
        ("nowhere", MD5, "404"),
    ):
        with pytest.raises(DataError, match=message):
            fetch(Remote(served[0] + name, checksum), folder)
        assert not list(folder.iterdir())


def test_no_network_and_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloading, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = Remote(f"http://127.0.0.1:{silent.getsockname()[1]}/file", MD5)
        with pytest.raises(DataError, match=r"could not be fetched: .*timed out.*put it at"):
            fetch(remote, tmp_path)
    with pytest.raises(DataError, match=r"could not be fetched: .*refused"):
        fetch(remote, tmp_path)


def test_files_that_are_there_are_kept_and_wrong_ones_replaced(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(REMOTES, "mine", (Remote(served[0] + "file.bin", MD5),))
    folder = download("mine")
    assert folder == tmp_path / "cache" / "daso" / "mine"
    (served[1] / "file.bin").unlink()
    assert download("mine") == folder
    (folder / "file.bin").write_bytes(b"damaged")
    (served[1] / "file.bin").write_bytes(CONTENT)
    download("mine")
    assert (folder / "file.bin").read_bytes() == CONTENT


def archive(path: Path, entries: dict[str, bytes | None]) -> str:
    """Write a .tar.gz, in which None is a link, and return its checksum."""
    with tarfile.open(path, "w:gz") as packed:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(content)
            packed.addfile(member, io.BytesIO(content or b""))
    return "md5:" + hashlib.md5(path.read_bytes()).hexdigest()


def test_only_expected_members_are_unpacked(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (
        "top/a.bin",
        "../evil",
        "/evil",
        "top/../../evil",
        "top/deep/a.bin",
        "other/a.bin",
        "top/b.bin",
    )
    checksum = archive(served[1] / "all.tar.gz", {name: name.encode() for name in names})
    remote = Remote(served[0] + "all.tar.gz", checksum, ("a.bin", "b.bin"), "top")
    monkeypatch.setitem(REMOTES, "mine", (remote,))
    folder = download("mine", tmp_path / "here")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        "top",
        "top/a.bin",
        "top/b.bin",
    ]
    assert (folder / "top" / "a.bin").read_bytes() == b"top/a.bin"
    assert not list(tmp_path.rglob("evil"))
    (served[1] / "all.tar.gz").unlink()
    download("mine", folder)


def test_links_and_damaged_archives(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, there = served[1] / "all.tar.gz", tmp_path / "to"
    for entries, cut, message in (
        ({"top/a.bin": None}, 0, r"missing a\.bin"),  # a link
        ({"top/b.bin": b"b"}, 0, r"missing a\.bin"),
        ({"top/a.bin": b"a" * 9999}, 30, "could not be unpacked"),
    ):
        archive(path, entries)
        path.write_bytes(path.read_bytes()[: cut or None])
        checksum = "md5:" + hashlib.md5(path.read_bytes()).hexdigest()
        remote = Remote(served[0] + path.name, checksum, ("a.bin",), "top")
        monkeypatch.setitem(REMOTES, "mine", (remote,))
        with pytest.raises(DataError, match=message):
            download("mine", there)
        assert not list((there / "top").iterdir())


def test_a_relative_cache_folder_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "daso"
