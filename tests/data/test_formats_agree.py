"""One data set in every format: each reads the same classes, labels, parts and pixels."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from made_files import Member, pixels, png, write_tar

from daso.data.open import open_source

WORDS = {
    "train": ("train", "Labeled", "training"),
    "unlabeled": ("unlabeled", "Unlabelled", "unsupervised"),
    "validation": ("val", "VALID", "dev"),
    "test": ("test", "Testing"),
}
MISSING = ("", " ", "-1", "-1.0", "nan", "NaN", "None", "null", "NULL", "<NA>", "NaT")
CLASSES = {
    "zeros": ("01", "1", "10", "007", "2"),
    "texts and numbers": ("1", "2", "cat", "10", "3.0"),
    "case": ("Cat", "cat", "CAT", "dog"),
    "forms": ("caf\u00e9", "e\u0301t\u00e9", "\uff12", "\u0662", "2"),
    "quotes": ('"q"', "it's", 'a"b', "`c`", "\u201cx\u201d"),
    "separators": ("a,b", "c;d", "e\tf", "g|h", "i j"),
    "markup": ("<b>", "$x$", "[red]a", ":smile:", "a&b", "=1+1"),
    "directions": ("\u05e9\u05dc\u05d5\u05dd", "abc\u202e", "abc", "\U0001f468\u200d\U0001f469"),
    "read like missing": ("none", "NA", "unknown", "n.a."),
    "long": ("x" * 200, "x" * 199 + "y", "x"),
    "points": ("a.b", "a.jpg", "v1.0", "1.5"),
}


class Image(NamedTuple):
    """An image of the data set: the seed of its pixels, its class, its part as it is named."""

    seed: int
    label: str | None
    part: str

    @property
    def png(self) -> bytes:
        return png(pixels(self.seed))


Images = Sequence[Image]
Writer = Callable[[Path, Images, random.Random], Path]


def draw(classes: Sequence[str], drawn: random.Random) -> list[Image]:
    """Return images of some classes, in any order; some lack a label or are of other parts."""
    chosen = drawn.sample(classes, drawn.randint(2, len(classes)))
    content = [("train", name) for name in chosen for _ in range(drawn.randint(1, 3))]
    content += [(part, None) for part in ("train", "unlabeled") for _ in range(drawn.randint(0, 3))]
    for part in ("validation", "test"):
        content += [(part, name) for name in drawn.sample(chosen, drawn.randint(0, len(chosen)))]
    drawn.shuffle(content)
    first = drawn.randrange(10**6)
    return [Image(first + number, label, part) for number, (part, label) in enumerate(content)]


def by_part(images: Images) -> dict[str, list[Image]]:
    return {part: of for part in WORDS if (of := [one for one in images if one.part == part])}


def as_folders(folder: Path, images: Images, drawn: random.Random) -> Path:
    words = {part: drawn.choice(names) for part, names in WORDS.items()}
    for image in images:
        place = folder / words[image.part] / (image.label or "")
        if image.label is None:
            place = folder / words["unlabeled"] / drawn.choice(("", "deep/er"))
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{image.seed}.png").write_bytes(image.png)
    return folder


def rows(folder: Path, images: Images, drawn: random.Random) -> Iterable[tuple[str, str, str]]:
    words = {part: drawn.choice(names) for part, names in WORDS.items()}
    for image in images:
        name = f"{drawn.choice(('', 'a b/', 'é/'))}{image.seed}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image.png)
        label = drawn.choice(MISSING) if image.label is None else image.label
        yield name, label, words[image.part]


def as_csv(folder: Path, images: Images, drawn: random.Random) -> Path:
    delimiter = drawn.choice(",;\t")
    file = folder / ("list.tsv" if delimiter == "\t" else "list.csv")
    text = io.StringIO()
    end, quoting = drawn.choice(("\n", "\r\n")), drawn.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    table = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    table.writerow(("File", "CLASS", drawn.choice(("split", "partition"))))
    table.writerows(rows(folder, images, drawn))
    file.write_bytes(text.getvalue().encode(drawn.choice(("utf-8", "utf-8-sig"))))
    return file


def as_json_lines(folder: Path, images: Images, drawn: random.Random) -> Path:
    lines = [
        json.dumps({"path": name, "label": label or None, "split": split})
        for name, label, split in rows(folder, images, drawn)
    ]
    (folder / "list.jsonl").write_text("\n".join(lines))
    return folder / "list.jsonl"


def as_parquet_manifest(folder: Path, images: Images, drawn: random.Random) -> Path:
    columns = zip(*rows(folder, images, drawn), strict=True)
    write_table(
        folder / "list.parquet", dict(zip(("path", "label", "split"), columns, strict=True))
    )
    return folder / "list.parquet"


def as_texts(folder: Path, images: Images, drawn: random.Random) -> Path:
    pa = pytest.importorskip("pyarrow")
    for part, of_part in by_part(images).items():
        labels = pa.array([one.label or drawn.choice((None, *MISSING)) for one in of_part])
        labels = labels if drawn.random() < 0.5 else labels.cast(pa.large_string())
        table = {"image": [one.png for one in of_part], "label": labels}
        write_table(folder / f"{drawn.choice(WORDS[part])}-0.parquet", table)
    return folder


def as_named_numbers(folder: Path, images: Images, drawn: random.Random) -> Path:
    """Write tables each of which numbers the classes in its own way."""
    for part, of_part in by_part(images).items():
        names = sorted({one.label for one in images if one.label is not None})
        drawn.shuffle(names)
        labels = [-1 if one.label is None else names.index(one.label) for one in of_part]
        content = [{"bytes": one.png, "path": None} for one in of_part]
        features = {"image": {"_type": "Image"}, "label": {"names": names}}
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        file = folder / f"{drawn.choice(WORDS[part])}.parquet"
        write_table(file, {"image": content, "label": labels}, about)
    return folder


def write_table(file: Path, columns: dict[str, Any], about: dict[str, str] | None = None) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns).replace_schema_metadata(about), file)


def as_shards(folder: Path, images: Images, drawn: random.Random) -> Path:
    ending = drawn.choice(("tar", "tar.gz"))
    for part in WORDS:
        members: list[Member] = []
        for image in images:
            if part != ("unlabeled" if image.label is None else image.part):
                continue
            members.append((f"{image.seed}.png", image.png))
            if image.label is not None and drawn.random() < 0.5:
                members.append((f"{image.seed}.cls", f"{image.label}\n".encode()))
            elif image.label is not None:
                label = json.dumps({"label": image.label}).encode()
                members.insert(len(members) - 1, (f"{image.seed}.json", label))
        if members:
            mode = "w:gz" if ending == "tar.gz" else "w"
            write_tar(folder / f"{drawn.choice(WORDS[part])}-0.{ending}", members, mode)
    return folder


def as_arrays(folder: Path, images: Images, drawn: random.Random) -> Path:
    names = sorted({one.label for one in images if one.label is not None})
    drawn.shuffle(names)
    arrays: dict[str, Any] = {"class_names": names}
    for part, of_part in by_part(images).items():
        prefix = {"validation": "val_", "train": drawn.choice(("train_", ""))}.get(part, f"{part}_")
        arrays[f"{prefix}images"] = np.stack([pixels(one.seed) for one in of_part])
        if part != "unlabeled":
            labels = [-1 if one.label is None else names.index(one.label) for one in of_part]
            arrays[f"{prefix}labels"] = np.array(labels, dtype=np.int16)[:, None]
    folder.mkdir(parents=True)
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def truth(images: Images) -> dict[bytes, tuple[str, str | None]]:
    return {
        pixels(one.seed).tobytes(): (one.part if one.label else "unlabeled", one.label)
        for one in images
    }


def read(source: Path) -> dict[bytes, tuple[str, str | None]]:
    opened = open_source(str(source))
    return {
        np.asarray(image).transpose(1, 2, 0).tobytes(): (
            part,
            opened.class_names[label] if label >= 0 else None,
        )
        for part, images in opened.parts().items()
        for image, label in zip(images.images, images.labels.tolist(), strict=True)
    }


WRITERS: tuple[Writer, ...] = (
    as_folders,
    as_csv,
    as_json_lines,
    as_parquet_manifest,
    as_texts,
    as_named_numbers,
    as_shards,
    as_arrays,
)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_format_reads_the_same(tmp_path: Path, kind: str) -> None:
    for round_ in range(3):
        drawn = random.Random(f"{kind} {round_}")
        images = draw(CLASSES[kind], drawn)
        for writer in WRITERS:
            source = writer(tmp_path / f"{round_} {writer.__name__}", images, drawn)
            assert read(source) == truth(images), (writer, images)
