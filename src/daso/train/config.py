"""The configuration of a run: everything that, with the data, determines it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, get_origin

from daso.constraints import annotations_of, check_options, kind_of
from daso.data.longtail import SplitOptions
from daso.errors import OptionError, Range, RunError, nearest
from daso.files import read_json
from daso.train.options import TrainOptions
from daso.train.view_options import VectorViewOptions, ViewOptions

GROUPS: dict[str, type[Any]] = {
    "split": SplitOptions,
    "train": TrainOptions,
    "augmentation": ViewOptions,
    "vectors": VectorViewOptions,
}
"""Parts of a configuration; all their options, and those of the method, have different names."""
NOT_IN_FINGERPRINT = (
    *("source", "data", "folders", "embedding_folder", "cache", "memory", "device"),
    "journal",
    *("cuda_graph", "recompute", "save_minutes", "on_divergence", "rollbacks"),
)
"""Options that do not change what a training computes."""
LEFT_OUT = {"precision": "float32"}
"""Values that the fingerprint leaves out in place of the general default."""


@dataclass(frozen=True)
class RunConfig:
    """What is trained, on what, and how.

    Attributes:
        source: name or path of the images.
        method: for example ``"fixmatch+daso"``.
        data: folder of a named source's files; None: the usual places. For a manifest, the folder
            of its images; None: the manifest's own.
        folders: parts of an image folder that are elsewhere: "unlabeled", "val", "test".
        size: side in pixels to which a folder's images are resized; None: the reader chooses.
        skip_bad: whether images that cannot be read are left out.
        journal: entries of the journal of ``daso label`` that are applied, so that a resumed run
            has the same labels; None: all; 0: none.
        cache: folder that keeps decoded images; None: images are decoded into memory.
        memory: GB of memory for cached images (see ``prepare_data``); None: half of what is free.
        split: labeled, unlabeled and held-out images.
        method_options: hyper-parameters of the method, all of them once a run has started.
        train: length, optimizer, network.
        augmentation: of the views of images.
        vectors: of the views of vectors.
    """

    source: str
    method: str
    data: str | None = None
    folders: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    skip_bad: bool = False
    journal: int | None = None
    cache: str | None = None
    memory: Annotated[float, Range(0)] | None = None
    split: SplitOptions = field(default_factory=SplitOptions)
    method_options: dict[str, Any] = field(default_factory=dict)
    train: TrainOptions = field(default_factory=TrainOptions)
    augmentation: ViewOptions = field(default_factory=ViewOptions)
    vectors: VectorViewOptions = field(default_factory=VectorViewOptions)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kind = kind_of(annotations_of(RunConfig)[name])
            expected = get_origin(kind.one) or kind.one
            kinds = (float, int) if expected is float else expected
            if not isinstance(value, kinds) and not (kind.optional and value is None):
                raise OptionError(f"{name} must be of type {expected.__name__}, got {value!r:.80}")
        check_options(self)
        if not all(isinstance(folder, str) for folder in self.folders.values()):
            raise OptionError(f"folders must be paths, got {self.folders!r:.80}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, folder: Path) -> RunConfig:
        """Read a run's configuration; raise a ``RunError`` if config.json is missing or invalid."""
        path = folder / "config.json"
        return cls.from_dict(read_json(path), str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> RunConfig:
        """Build a configuration from JSON values; *where* names their file in errors.

        Raises:
            RunError: a key is unknown or missing.
        """
        try:
            parts = {n: build(kind, values.get(n, {}), n) for n, kind in GROUPS.items()}
            config: RunConfig = build(cls, {**values, **parts}, "configuration")
        except OptionError as error:
            raise RunError(f"{where}: {error}") from error
        return config

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with anything that changes the result.

        Paths, device and error handling are left out, as they do not change it; the data has its
        own fingerprints. General defaults are left out too: an option added later changes nothing.
        """
        values = self.to_dict()
        for name, kind in GROUPS.items():
            default = vars(kind()) | LEFT_OUT
            options = vars(getattr(self, name))
            values[name] = {option: v for option, v in options.items() if v != default[option]}
        for key in NOT_IN_FINGERPRINT:
            values.pop(key, None)
            values["train"].pop(key, None)
        values = {name: value for name, value in values.items() if value not in (None, False, {})}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def build(kind: type[Any], values: Any, where: str) -> Any:
    """Build a dataclass of options from values by name; *where* names their place in errors.

    Raises:
        OptionError: a name is unknown, or a value is invalid.
    """
    if not isinstance(values, dict):
        raise OptionError(f"{where}: expected an object, found {type(values).__name__}")
    names = [option.name for option in fields(kind)]
    for key in values:
        if key not in names:
            raise OptionError(f"{where}: unknown key {key!r}.{nearest(str(key), names)}")
    try:
        return kind(**values)
    except TypeError as error:
        what = "a value is missing or of the wrong type"
        raise OptionError(f"{where}: {what}: {error}") from error
