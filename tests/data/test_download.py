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

from daso.data.benchmarks.download import Remote, cache_folder, download, extract, fetch
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
        target = tmp_path / "deep" / checksum[:3] / "file.bin"
        fetch(
            served[0] + "file.bin",
            target,
            checksum=checksum,
            progress=lambda *state: seen.append(state),
        )
        assert target.read_bytes() == CONTENT
        assert list(target.parent.iterdir()) == [target]
    assert seen[-1] == ("file.bin", len(CONTENT), len(CONTENT))


def test_nothing_stays_when_something_is_wrong(served: tuple[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "target" / "file.bin"
    for name, message in (
        ("file.bin", "the checksum is md5:.* the published one md5:0"),
        ("short", "ended after 2,048,000 of 4,096,000 bytes"),
        ("nowhere", "404"),
    ):
        with pytest.raises(DataError, match=message):
            fetch(served[0] + name, target, checksum="md5:0")
        assert not target.parent.exists() or not list(target.parent.iterdir())


def test_no_network_and_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/file"
        with pytest.raises(DataError, match=r"could not be fetched: .*timed out.*put it at"):
            fetch(address, tmp_path / "file", checksum=MD5, timeout=0.2)
    with pytest.raises(DataError, match=r"could not be fetched: .*refused"):
        fetch(address, tmp_path / "file", checksum=MD5)
    with pytest.raises(DataError, match="only http"):
        fetch("file:///etc/passwd", tmp_path / "file", checksum=MD5)


def test_files_that_are_there_are_kept_and_wrong_ones_replaced(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remotes = {"mine": (Remote(served[0] + "file.bin", MD5),)}
    folder = download("mine", remotes=remotes)
    assert folder == tmp_path / "cache" / "daso" / "mine"
    (served[1] / "file.bin").unlink()
    assert download("mine", remotes=remotes) == folder
    (folder / "file.bin").write_bytes(b"damaged")
    (served[1] / "file.bin").write_bytes(CONTENT)
    download("mine", remotes=remotes)
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


def test_only_expected_members_are_unpacked(served: tuple[str, Path], tmp_path: Path) -> None:
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
    remotes = {"mine": (Remote(served[0] + "all.tar.gz", checksum, ("a.bin", "b.bin"), "top"),)}
    folder = download("mine", tmp_path / "here", remotes=remotes)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        "top",
        "top/a.bin",
        "top/b.bin",
    ]
    assert (folder / "top" / "a.bin").read_bytes() == b"top/a.bin"
    assert not list(tmp_path.rglob("evil"))
    (served[1] / "all.tar.gz").unlink()
    download("mine", folder, remotes=remotes)


def test_hostile_and_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "all.tar.gz"
    archive(path, {"top/a.bin": None})
    with pytest.raises(DataError, match="not a regular file"):
        extract(path, tmp_path / "to", "top", ("a.bin",))
    archive(path, {"top/b.bin": b"b"})
    with pytest.raises(DataError, match=r"missing a\.bin"):
        extract(path, tmp_path / "to", "top", ("a.bin",))
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(DataError, match="not a readable"):
        extract(path, tmp_path / "to", "top", ("a.bin",))
    assert not (tmp_path / "to").exists()


def test_unknown_names_and_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="Did you mean 'cifar10'"):
        download("cifar1")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "daso"
