"""Objects in processes of their own, so that what is measured does not meet what else is."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch


class Remote:
    """An object in a process of its own: threads, memory and compiled code of one leave the others alone.

    Args:
        threads: of torch in that process.
        make: makes the object there, from *arguments*.

    Raises:
        RuntimeError: it could not be made; the message says why.
    """

    def __init__(self, threads: int, make: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["torch._dynamo", "torch.utils.flop_counter", "daso.train.run"]
        )
        self._pipe, there = context.Pipe()
        # Not a daemon: those may not have data-loading processes of their own.
        self._process = context.Process(
            target=_serve, args=(there, threads, make, arguments), daemon=False
        )
        self._process.start()
        there.close()
        self._answer()

    def _answer(self) -> Any:
        try:
            error, result = self._pipe.recv()
        except EOFError:
            error = "the process died"
        if error is not None:
            self.close()
            raise RuntimeError(error)
        return result

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of the object and return its result."""
        self._pipe.send((method, arguments))
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(
    pipe: Any, threads: int, make: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    torch.set_num_threads(threads)
    # Data-loading processes start as they do in any program, not in this process's own way.
    multiprocessing.set_start_method(None, force=True)
    try:
        target = make(*arguments)
        pipe.send((None, None))
        while True:
            try:
                method, given = pipe.recv()
            except EOFError:
                return
            pipe.send((None, getattr(target, method)(*given)))
    except Exception as error:
        pipe.send((f"{type(error).__name__}: {error}", None))
