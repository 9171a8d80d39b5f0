"""A report, read as a file, and run folders that say what nobody would."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from run_files import edit
from safetensors import safe_open

from daso.files import CHECKSUM
from daso.report.html.page import write_report
from daso.report.html.run import load_run

ALL_SECTIONS = ["overview", "classes", "pseudo_labels", "galleries", "label_next", "map"]
ALL_SECTIONS += ["confusion", "calibration", "training", "about"]
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</script><script>document.title='owned'</script>",
    "{{ 7 * 7 }}",
    '=HYPERLINK("http://example.org")',
    "' onmouseover='document.title=1",
    "<!-- --><svg onload=alert(1)>",
    "\u2028line\u2029\x00",
    "ß" * 80,
    "&lt;b&gt; & co",
)


class Parsed(HTMLParser):
    """Elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._silent = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, white space made one blank."""
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def sections(self) -> list[str]:
        """The identifiers of the sections."""
        return [str(attributes["id"]) for tag, attributes in self.elements if tag == "section"]


def report(folder: Path) -> Parsed:
    return Parsed(write_report(folder)[0].read_text(encoding="utf-8"))


def change(path: Path, **values: Any) -> None:
    edit(path, lambda values_there: values_there.update(values))


def change_beliefs(folder: Path, about: dict[str, Any], **arrays: np.ndarray) -> None:
    path = folder / "beliefs.safetensors"
    with safe_open(path, framework="numpy") as file:
        old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["beliefs"])
    header.pop(CHECKSUM, None)
    path.write_bytes(safetensors.numpy.save(old | arrays, {"beliefs": json.dumps(header | about)}))


def make_hostile(folder: Path) -> None:
    change(folder / "data.json", class_names=list(HOSTILE))
    change(folder / "confusion.json", class_names=list(HOSTILE))
    change(folder / "config.json", method=HOSTILE[0], source=HOSTILE[2])
    arrays = load_run(folder).arrays
    paths = {str(i): HOSTILE[i % len(HOSTILE)] for i in arrays["pool.index"].tolist()}
    change_beliefs(folder, {"paths": paths})
