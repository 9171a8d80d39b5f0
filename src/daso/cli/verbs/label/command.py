"""The options of ``daso label``."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from daso.cli.terminal.arguments import Folder
from daso.cli.terminal.parse import Argument
from daso.errors import OptionError, Range, flag


@dataclass(frozen=True)
class LabelCommand:
    """Label images in the browser: the ones that help most come first, and training is one click.

    Every label is kept at once in a journal beside the images, which daso train, validate and data
    check take into account by themselves.
    """

    source: Annotated[str, Argument("SOURCE|RUN", positional=True)]
    """The path of your images, as for daso train; images without any label will do. Or a run
    folder: its images, compared by its model."""
    out: Path | None = None
    """Folder of the trainings that the page starts (default: runs/SOURCE-label)."""
    train: str = ""
    """Options of these trainings: --train='--steps 2000 --holdout 200' (default: those of
    the run, or daso train's own)."""
    network: str | None = None
    """Pretrained encoder to compare the images by, and to train on with --freeze: hf:NAME,
    timm:NAME or a folder (default: the newest model; before the first training patches of the
    images, without a network)."""
    data: Path | None = None
    """For a manifest, the folder that its paths start in (default: its own)."""
    unlabeled: Annotated[str | None, Argument("FOLDER|TARS")] = None
    """Folder or tar shards of unlabeled images, if they are elsewhere."""
    val: Folder | None = None
    """Folder of validation images, with one folder per class, if they are elsewhere."""
    test: Folder | None = None
    """Folder of test images, with one folder per class, if they are elsewhere."""
    cache: Path | None = None
    """Folder that keeps decoded images, for data sets larger than memory."""
    export: Path | None = None
    """Write a CSV file of all images with their labels now, and end."""
    apply: bool = False
    """Sort the labeled files of a folder into labeled/CLASS/, and end. It can be repeated."""
    links: bool = False
    """With --apply: make hard links in place of copies."""
    move: bool = False
    """With --apply: move the files."""
    undo: bool = False
    """With --apply: put back the files that were sorted."""
    host: str = "127.0.0.1"
    """Address to listen on; another than this computer's own shows your images to others."""
    port: Annotated[int, Range(0, 2**16, below=True)] | None = None
    """Port to listen on; 0 takes any (default: the first free one from 8737)."""
    open: bool = True
    """Open the page in the browser."""

    @property
    def how(self) -> Literal["copy", "link", "move"]:
        """How --apply sorts files."""
        return "link" if self.links else "move" if self.move else "copy"

    def __post_init__(self) -> None:
        chosen = [flag(name) for name in ("links", "move", "undo") if getattr(self, name)]
        if chosen and not self.apply:
            raise OptionError(f"{chosen[0]} goes with --apply")
        both = ["--export", "--apply"] if self.apply and self.export else chosen
        if len(both) > 1:
            raise OptionError(f"give one of {', '.join(both)}")
        try:
            words = shlex.split(self.train)
        except ValueError as error:
            raise OptionError(f"--train = {self.train!r}: {error}") from None
        taken = {"--out", "--like", "--quiet"} & {word.partition("=")[0] for word in words}
        if taken:
            raise OptionError(f"--train: {', '.join(sorted(taken))} is set by the page")
