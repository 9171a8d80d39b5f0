"""A port for a server that begins later, or a second time."""

from __future__ import annotations

import contextlib
import socket
from random import SystemRandom


def free_port() -> int:
    """Return a port that is free, of those that the system gives nobody who asks for any: it stays so."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", SystemRandom().randrange(10_000, 30_000)))
            return int(probe.getsockname()[1])
