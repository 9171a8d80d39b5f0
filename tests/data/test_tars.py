"""Images in tar shards: the same as in files, wherever they lie, and errors that name the shard."""

from __future__ import annotations

import http.server
import io
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from made_files import plain_png, write_shard, write_tar
from PIL import Image

from daso.data.formats import tar_shards as tars
from daso.data.formats.tar_shards import expand, read_samples, unlabeled_tars
from daso.data.images.cache import Cache
from daso.data.open import open_source
from daso.errors import DataError

MakeFolder = Callable[..., Path]


def pack(folder: Path, where: Path, *, labels: str = "cls") -> None:
    """Write an image folder as shards of five images."""
    classes = sorted(path.name for path in (folder / "labeled").iterdir())
    for part in ("labeled", "unlabeled", "val", "test"):
        files = sorted((folder / part).rglob("*.png"))
        for start in range(0, len(files), 5):
            members = []
            for path in files[start : start + 5]:
                key = "_".join(path.relative_to(folder / part).with_suffix("").parts)
                members.append((f"{key}.png", path.read_bytes()))
                label = classes.index(path.parent.name) if part != "unlabeled" else -1
                if part == "unlabeled":
                    members.append((f"{key}.txt", b"a caption"))
                elif labels == "cls":
                    members.append((f"{key}.cls", str(label).encode()))
                else:
                    members.append(
                        (f"{key}.json", f'{{"label": "{classes[label]}", "x": 1}}'.encode())
                    )
            write_tar(where / f"{part}-{start // 5:03d}.tar", members)


@pytest.mark.parametrize("labels", ["cls", "json"])
def test_a_folder_of_shards_is_the_folder(
    labels: str, make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_image_folder()
    pack(folder, tmp_path, labels=labels)
    if labels == "cls":
        (tmp_path / "classes.txt").write_text("blue\ngreen\nred\n")
    plain, packed = open_source(str(folder)), open_source(str(tmp_path))
    assert packed.class_names == ("blue", "green", "red")
    for part in ("train", "unlabeled", "validation", "test"):
        assert np.array_equal(getattr(packed, part).images, getattr(plain, part).images)
        assert np.array_equal(getattr(packed, part).labels, getattr(plain, part).labels)
        cached = open_source(str(tmp_path), cache=Cache(tmp_path / "cache"))
        assert np.array_equal(np.asarray(getattr(cached, part).images), getattr(plain, part).images)


def test_numbers_are_the_names_where_nobody_says_others(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    pack(make_image_folder(), tmp_path)
    assert open_source(str(tmp_path)).class_names == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("blue\ngreen\n")
    with pytest.raises(DataError, match=r"classes\.txt: has 2 names.* label 2"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("place", ["inside", "folder", "pattern", "star", "address", "mixed", "gz"])
def test_unlabeled_shards_go_with_a_labeled_folder(
    place: str, make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_image_folder()
    plain = open_source(str(folder))
    assert plain.unlabeled is not None
    pack(folder, tmp_path)
    shards = sorted(tmp_path.glob("unlabeled-*.tar"))
    away = tmp_path / "away"
    away.mkdir()
    files = sorted((folder / "unlabeled").rglob("*.png"))
    if place == "mixed":
        for file in files[5:]:
            file.unlink()
        shards = shards[1:]
    else:
        shutil.rmtree(folder / "unlabeled")
    target = folder / "unlabeled" if place in ("inside", "mixed") else away
    target.mkdir(exist_ok=True)
    for shard in shards:
        shard.rename(target / shard.name)
    if place == "gz":
        every = [
            (f"{n}.png", file.image) for n, file in enumerate(samples(sorted(away.glob("*.tar"))))
        ]
        write_tar(away / "all.tar.gz", every, "w:gz")
    unlabeled = {
        "inside": None,
        "mixed": None,
        "folder": str(away),
        "pattern": str(away / "unlabeled-{000..004}.tar"),
        "star": str(away / "unlabeled-*.tar"),
        "address": f"file://{away}/unlabeled-{{000..004}}.tar",
        "gz": str(away / "all.tar.gz"),
    }[place]
    source = open_source(str(folder), folders={"unlabeled": unlabeled} if unlabeled else None)
    assert source.unlabeled is not None
    assert np.array_equal(source.unlabeled.images, plain.unlabeled.images)
    assert (source.unlabeled.labels == -1).all()


def samples(shards: Iterable[Path]) -> Iterable[tars.Sample]:
    return [sample for shard in shards for sample in read_samples(str(shard), contents=True)]


def test_patterns() -> None:
    assert expand("s3://b/{a,bc}-{08..11}.tar") == [
        f"s3://b/{name}-{n}.tar" for name in ("a", "bc") for n in ("08", "09", "10", "11")
    ]
    assert expand("plain.tar") == ["plain.tar"]
    for wrong in ("{5..4}.tar", "{0..9999999}.tar", "{0..9999}{0..9999}.tar", "/nowhere/*.tar"):
        with pytest.raises(DataError):
            expand(wrong)


def test_what_belongs_to_an_image(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar",
        [
            ("x/0.seg.png", plain_png(1)),
            ("x/0.PNG", plain_png(2)),
            ("x/0.cls", b" 3\n"),
            ("y/0.json", b"[1]"),
            ("y/0.jpg", plain_png(4)),
            ("z/only.txt", b"text"),
            ("z/._hidden.png", plain_png(5)),
            ("w/1.png", plain_png(6)),
            ("w/1.json", b'{"label": 7}'),
        ],
    )
    found = list(read_samples(str(tmp_path / "a.tar"), contents=True))
    assert [(sample.key, sample.label) for sample in found] == [
        ("x/0", "3"),
        ("y/0", ""),
        ("w/1", "7"),
    ]
    assert [Image.open(io.BytesIO(sample.image)).getpixel((0, 0)) for sample in found] == [2, 4, 6]
    assert [s.key for s in read_samples(str(tmp_path / "a.tar"), contents=False)] == [
        "x/0",
        "y/0",
        "w/1",
    ]


def test_a_long_shard_keeps_no_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "a.tar", [(f"{n:05d}.png", plain_png(n % 256)) for n in range(2000)])
    longest = 0
    plain = tarfile.TarFile.next

    def following(self: tarfile.TarFile) -> tarfile.TarInfo | None:
        nonlocal longest
        longest = max(longest, len(self.members))  # type: ignore[attr-defined]
        return plain(self)

    monkeypatch.setattr(tarfile.TarFile, "next", following)
    for contents in (True, False):
        assert sum(1 for _ in read_samples(str(tmp_path / "a.tar"), contents=contents)) == 2000
    assert longest < 5


def test_an_image_that_cannot_be_read_is_named(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_image_folder()
    pool = [("good.png", plain_png(1)), ("worse.png", b"no image"), ("last.png", plain_png(2))]
    write_tar(tmp_path / "pool-0.tar", pool[:1])
    write_tar(tmp_path / "pool-1.tar", pool[1:])
    places = {"unlabeled": f"{tmp_path}/pool-{{0..1}}.tar"}
    shutil.rmtree(folder / "unlabeled")
    with pytest.raises(DataError, match=r"pool-1\.tar, worse: not a readable image"):
        open_source(str(folder), folders=places)
    source = open_source(str(folder), folders=places, skip_bad=True)
    assert source.unlabeled is not None
    assert len(source.unlabeled) == 2


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_names_are_those_of_the_archive_that_is_there_now(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "images.tar"
    place = f"{scheme}{tmp_path.name}/images.tar" if scheme else str(path)
    for names in (["a", "b"], ["c", "d", "e"]):
        write_tar(path, [(f"{name}.png", plain_png(9)) for name in names])
        if scheme:
            fsspec.filesystem("memory").pipe(place.removeprefix(scheme), path.read_bytes())
        pool = unlabeled_tars(place)
        assert [pool.name_of(index) for index in range(len(pool))] == [
            f"{place}, {name}" for name in names
        ]


def test_damage_is_an_error_that_names_the_shard(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    folder = make_image_folder(unlabeled=0)
    noise = np.random.default_rng(0).bytes(4000)
    write_tar(
        tmp_path / "a.tar", [("0.png", plain_png(0)), ("1.png", noise), ("2.png", plain_png(2))]
    )
    content = (tmp_path / "a.tar").read_bytes()
    garbled = content[:1100] + bytes([content[1100] ^ 1]) + content[1101:]
    for damaged in (content[:700], content[:1100], content[:5000], garbled):
        (tmp_path / "a.tar").write_bytes(damaged)
        with pytest.raises(
            DataError, match=r"a\.tar: (not a readable tar file: .*; fetch it again|had)"
        ):
            open_source(str(folder), folders={"unlabeled": str(tmp_path / "a.tar")}, size=8)
    for damage in (b"", b"garbage" * 500):
        (tmp_path / "a.tar").write_bytes(damage)
        with pytest.raises(DataError, match=r"a\.tar: no"):
            unlabeled_tars(str(tmp_path / "a.tar"))
    for place in ("nowhere.tar", "file:///nowhere/at-all.tar", "memory://nowhere.tar"):
        with pytest.raises(DataError, match=r"\.tar: no such file"):
            unlabeled_tars(place)
    with pytest.raises(DataError, match=r"a\.tar: cannot be read: .*nosuchprotocol"):
        unlabeled_tars("nosuchprotocol://bucket/a.tar")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """Serve the folder by a web server that, like many, sends files whole only."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_shards_come_from_a_web_server_and_from_any_storage(web: str, tmp_path: Path) -> None:
    for number in range(2):
        members = [(f"{n}.png", plain_png(10 * number + n)) for n in range(3)]
        write_tar(tmp_path / f"pool-{number}.tar", members)
        fsspec.filesystem("memory").pipe(
            f"/{tmp_path.name}/pool-{number}.tar", (tmp_path / f"pool-{number}.tar").read_bytes()
        )
    local = unlabeled_tars(str(tmp_path / "pool-{0..1}.tar"))
    wanted = [content for chunk in local.chunks() for content in chunk]
    assert len(set(wanted)) == 6
    for place in (web, f"memory://{tmp_path.name}"):
        pool = unlabeled_tars(f"{place}/pool-{{0..1}}.tar")
        assert [content for chunk in pool.chunks() for content in chunk] == wanted
        assert len(set(pool.origins())) == 2
    with pytest.raises(DataError, match=r"pool-2\.tar: no such file"):
        unlabeled_tars(f"{web}/pool-2.tar")
    (tmp_path / "page.tar").write_text("<html>not what you asked for</html>" * 50)
    with pytest.raises(DataError, match=r"page\.tar: not a readable tar file"):
        unlabeled_tars(f"{web}/page.tar")


def test_points_in_names_are_refused_and_what_is_not_read_is_counted(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    pack(make_image_folder(), tmp_path)
    for members in (
        [("cam1.2024-06-01.0001.png", plain_png(0)), ("cam1.2024-06-01.0001.cls", b"0")],
        [("a.left.jpg", plain_png(0)), ("a.right.jpg", plain_png(1)), ("a.cls", b"0")],
    ):
        for part in ("train", "unlabeled"):
            write_tar(tmp_path / f"{part}-900.tar", members)
            count = sum(name.endswith("g") for name, _ in members)
            with pytest.raises(
                DataError, match=rf"{part}-900\.tar: .*{count} image files? "
            ) as told:
                open_source(str(tmp_path))
            assert members[0][0] in str(told.value)
            (tmp_path / f"{part}-900.tar").unlink()
    members = [
        ("a.png", plain_png(0)), ("a.cls", b"0"), ("a.mask.png", plain_png(1)), ("a.jpg", plain_png(2)),
        ("b.heif2", plain_png(0)), ("b.cls", b"1"), ("c.png", plain_png(3)), ("c.cls", b"\xef\xbb\xbf2"),
    ]  # fmt: skip
    write_tar(tmp_path / "train-900.tar", members)
    write_tar(tmp_path / "extra-000.tar", members)
    (tmp_path / "labels.txt").write_text("blue\n")
    before = (tmp_path / "train-900.tar").stat().st_size
    with tarfile.open(tmp_path / "train-900.tar", "a") as archive:
        link = tarfile.TarInfo("d.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a.png"
        archive.addfile(link)
        for name in ("._a.png", "x/.DS_Store", ".cache/e.png"):
            archive.addfile(tarfile.TarInfo(name))
        device = tarfile.TarInfo("f.png")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    assert before
    source = open_source(str(tmp_path))
    assert len(source.train) == 15 + 2
    notes = "\n".join(source.notes)
    for words in (
        "2 further images of a sample", "'a.mask.png'", "1 sample without an image", "(only .cls, .heif2)", "'b.heif2'",
        "1 link", "1 device", "3 hidden files", "'d.png'", "'extra-000.tar'",
        "1 .txt file", "labels.txt'",
    ):  # fmt: skip
        assert words in notes


def test_texts_that_mean_no_label_are_no_class(
    make_image_folder: MakeFolder, tmp_path: Path
) -> None:
    pack(make_image_folder(), tmp_path, labels="json")
    for label in (b"-1", b"nan", b"None"):
        write_tar(tmp_path / "train-900.tar", [("a.png", plain_png(0)), ("a.cls", label)])
        with pytest.raises(DataError, match="1 train images have no label"):
            open_source(str(tmp_path))


def test_numbers_may_begin_with_1(tmp_path: Path) -> None:
    members = [
        (f"{n}.{e}", c) for n in (1, 2, 3) for e, c in (("png", plain_png(n)), ("cls", b"%d" % n))
    ]
    write_tar(tmp_path / "train-0.tar", members)
    source = open_source(str(tmp_path))
    assert source.class_names == ("1", "2", "3")
    assert source.train.labels.tolist() == [0, 1, 2]
    (tmp_path / "classes.txt").write_text("a\nb\nc\n", encoding="utf-8-sig")
    with pytest.raises(DataError, match=r"has 3 names.* label 3"):
        open_source(str(tmp_path))


def test_a_listed_class_without_an_image_is_left_out_and_told(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.tar", ["0", "3", "3"])
    (tmp_path / "classes.txt").write_text("ape\nbat\ncat\ndog\n")
    source = open_source(str(tmp_path))
    assert source.class_names == ("ape", "dog")
    assert source.train.labels.tolist() == [0, 1, 1]
    assert any("left out: 'bat', 'cat'" in note for note in source.notes)


def test_missing_and_unknown_labels(make_image_folder: MakeFolder, tmp_path: Path) -> None:
    pack(make_image_folder(), tmp_path)
    write_tar(tmp_path / "test-900.tar", [("a.png", plain_png(0)), ("a.cls", b"17")])
    with pytest.raises(DataError, match=r"test label '17' .*'0', '1', '2'"):
        open_source(str(tmp_path))
    blank = [("a.png", plain_png(0)), ("a.cls", b" \n"), ("b.png", plain_png(0))]
    write_tar(tmp_path / "test-900.tar", blank)
    with pytest.raises(DataError, match=r"2 test images have no label; give each a \.cls"):
        open_source(str(tmp_path))


def test_a_huge_member_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "LARGEST_MEMBER", 1000)
    write_tar(tmp_path / "a.tar", [("0.png", bytes(1001))])
    with pytest.raises(DataError, match="1,001 bytes; at most 1,000"):
        list(read_samples(str(tmp_path / "a.tar"), contents=True))
