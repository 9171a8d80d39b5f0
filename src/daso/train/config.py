"""The configuration of a run: everything that, with the data, determines it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from daso.data.longtail import SplitOptions
from daso.errors import OptionError, RunError, nearest
from daso.files import read_json
from daso.train.options import TrainOptions
from daso.train.view_options import VectorViewOptions, ViewOptions

NOT_IN_FINGERPRINT = [
    "source",
    "data",
    "folders",
    "device",
    "cuda_graph",
    "recompute",
    "embedding_folder",
    "cache",
    "memory",
    "save_minutes",
    "on_divergence",
    "rollbacks",
]
"""Options that do not change what a training computes."""


@dataclass(frozen=True)
class RunConfig:
    """What is trained, on what, and how.

    Attributes:
        source: a source's name or path.
        data: where the files of a named source are; None: where they usually are. Of a manifest, the folder that holds
            its images; None: its own.
        folders: of an image folder, where its parts "unlabeled", "val" and "test" are, if not in it.
        size: side in pixels to which a folder's images are resized; None: the reader chooses.
        skip_bad: go on without images that cannot be read.
        cache: folder that keeps decoded images; None: they are decoded into memory.
        memory: GB that images of the cache may take in memory (``prepare_data``); None: half of what is free.
        split: labelled, unlabelled and held-out images.
        method: e.g. ``"fixmatch+daso"``.
        method_options: hyper-parameters of the method, all of them once a run has started.
        train: length, optimiser, network.
        augmentation: of the views of images.
        vectors: of the views of vectors.
    """

    source: str
    method: str
    data: str | None = None
    folders: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    skip_bad: bool = False
    cache: str | None = None
    memory: float | None = None
    split: SplitOptions = field(default_factory=SplitOptions)
    method_options: dict[str, Any] = field(default_factory=dict)
    train: TrainOptions = field(default_factory=TrainOptions)
    augmentation: ViewOptions = field(default_factory=ViewOptions)
    vectors: VectorViewOptions = field(default_factory=VectorViewOptions)

    def __post_init__(self) -> None:
        kinds: dict[str, Any] = {
            "source": str,
            "method": str,
            "method_options": dict,
            "folders": dict,
            "skip_bad": bool,
        }
        optional: dict[str, Any] = {"data": str, "size": int, "cache": str, "memory": (float, int)}
        for name, kind in {**kinds, **optional}.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and not (value is None and name in optional):
                called = kind.__name__ if isinstance(kind, type) else "float"
                raise OptionError(f"{name} must be of type {called}, got {value!r:.80}")
        if self.memory is not None and not self.memory >= 0:
            raise OptionError(f"memory = {self.memory!r} must be at least 0 GB")
        if not all(isinstance(folder, str) for folder in self.folders.values()):
            raise OptionError(f"folders must be paths, got {self.folders!r:.80}")

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, folder: Path) -> RunConfig:
        """Read the configuration of a run from its folder.

        Raises:
            RunError: there is none, or it cannot be read.
        """
        path = folder / "config.json"
        return cls.from_dict(read_json(path), str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> RunConfig:
        """Build a configuration from JSON values; *where* names their file in errors.

        Raises:
            RunError: a key is unknown or missing.
        """
        nested: dict[str, type[Any]] = {
            "split": SplitOptions,
            "train": TrainOptions,
            "augmentation": ViewOptions,
            "vectors": VectorViewOptions,
        }
        parts = {
            name: _build(kind, values.get(name, {}), f"{where}, {name}")
            for name, kind in nested.items()
        }
        config: RunConfig = _build(cls, {**values, **parts}, where)
        return config

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that change with anything that changes the training's result.

        Where the data lies, on what device it is trained and how faults are met are left out; what the data is has
        fingerprints of its own. So are values that are the general default: an option that comes with a later version
        changes nothing.
        """
        values = self.to_dict()
        for part in fields(self):
            own = getattr(self, part.name)
            if is_dataclass(own) and not isinstance(own, type):
                default = type(own)()
                names = [field.name for field in fields(own)]
                kept = {name: getattr(own, name) for name in names}
                values[part.name] = {n: v for n, v in kept.items() if v != getattr(default, n)}
        for elsewhere in (values, values["train"]):
            for key in NOT_IN_FINGERPRINT:
                elsewhere.pop(key, None)
        values = {name: value for name, value in values.items() if value not in (None, False, {})}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _build(kind: type[Any], values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise RunError(f"{where}: expected an object, found {type(values).__name__}")
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            raise RunError(f"{where}: unknown key {key!r}.{nearest(key, known)}")
    try:
        return kind(**values)
    except (TypeError, OptionError) as error:
        raise RunError(f"{where}: {error}") from error
