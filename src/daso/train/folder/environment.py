"""Where a run happened: versions, hardware, commit and command."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

COMPARED = ["daso", "commit", "python", "torch", "numpy", "platform"]
COMPARED += ["device", "hardware", "threads", "own_files"]
"""Entries by which two environments are compared."""


def processor() -> str:
    """Return the name of the processor's model."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of this package's checkout, ``-dirty`` if it has changes, or None."""
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        # Without locks: a process that is killed would leave one in the user's repository.
        command = ["git", "--no-optional-locks", "-C", str(here.parent), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return result.stdout.strip()

    try:
        # A package installed inside another project's checkout is not tracked by it.
        git("ls-files", "--error-unmatch", here.name)
        commit = git("describe", "--always", "--abbrev=12", "--exclude=*")
        changed = git("status", "--porcelain", "--untracked-files=no")
        return f"{commit}-dirty" if commit and changed else commit or None
    except (OSError, subprocess.SubprocessError):
        return None


def _own_files(method: str) -> dict[str, str]:
    places = [part.rpartition(":")[0] for part in method.split("+") if ":" in part]
    paths = [Path(getattr(sys.modules.get(place), "__file__", None) or place) for place in places]
    contents = {str(path): path.read_bytes() for path in paths if path.is_file()}
    return {path: hashlib.sha256(content).hexdigest()[:16] for path, content in contents.items()}


def describe_environment(device: torch.device, method: str = "") -> dict[str, Any]:
    """Return what is needed to repeat a run, with checksums of custom parts, as JSON values."""
    program = Path(sys.argv[0]).name.replace("__main__.py", "daso")  # python -m daso
    return {
        "command": shlex.join([program, *sys.argv[1:]]),
        "daso": importlib.metadata.version("daso"),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": str(device),
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "own_files": _own_files(method),
    }


def describe_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Describe the differences of two environments; entries missing from either are skipped."""
    both = [name for name in COMPARED if name in before and name in now]
    changed = [name for name in both if before[name] != now[name]]
    return [f"{n.replace('_', ' ')} {_text(before[n])}, now {_text(now[n])}" for n in changed]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} ({item})" for name, item in value.items()) or "none"
    return "unknown" if value is None else str(value)
