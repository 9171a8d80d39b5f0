"""Serve the application on this computer, at an address that only its user knows."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from daso.errors import RunError

PORT = 8737
"""First port that is tried. A fixed one lets a browser find what it could not send before."""
MOST_PORTS = 20
NAMES = ("127.0.0.1", "localhost", "[::1]")
"""How browsers call this computer."""


def bind(host: str, port: int | None) -> socket.socket:
    """Return a listening socket: on *port*, or if it is None on the first free one from 8737.

    Raises:
        RunError: the port is in use, or there is no such address.
    """
    reason: OSError | None = None
    for one in range(PORT, PORT + MOST_PORTS) if port is None else (port,):
        try:
            family = socket.getaddrinfo(host, one, type=socket.SOCK_STREAM)[0][0]
            # With the protocol named, asyncio sends each part of an answer at once.
            listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((host, one))
                listening.listen(128)
            except BaseException:
                listening.close()
                raise
        except OSError as error:
            reason = error
        else:
            return listening
    text = reason.strerror if reason else "no port"
    what = f"port {port}" if port else f"a port from {PORT} to {PORT + MOST_PORTS - 1}"
    raise RunError(f"cannot listen on {what} of {host}: {text}; choose another with --port")


def is_local(host: str) -> bool:
    """Whether only this computer can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def meant_hosts(host: str, port: int) -> set[str]:
    """Return the values of Host that are meant."""
    names = set(NAMES) if is_local(host) else {f"[{host}]" if ":" in host else host}
    if host in ("0.0.0.0", "::"):  # every address of this computer
        names = {*NAMES, socket.gethostname(), *_own_addresses()}
    return {f"{name}:{port}" for name in names}


def _own_addresses() -> set[str]:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()
    return {f"[{address}]" if ":" in address else address for address in found}


def serve(
    make_app: Callable[[str, set[str], int], ASGIApp],
    host: str,
    port: int | None,
    notice: Callable[[str], None],
    *,
    open_browser: bool,
) -> None:
    """Serve an application until the process is asked to end.

    Args:
        make_app: called with the token, the values of Host that are meant, and the port.
        notice: called with what to tell the user.
    """
    token = secrets.token_urlsafe(24)
    with bind(host, port) as listening:
        number = listening.getsockname()[1]
        app = make_app(token, meant_hosts(host, number), number)
        shown = host if host not in ("0.0.0.0", "::") else socket.gethostname()
        address = f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/?token={token}"
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=2,
        )
        if not is_local(host):
            notice(
                f"warning: {host} can be reached from other computers. Whoever has the address can "
                "see and label your images; the connection is not encrypted. Prefer an SSH tunnel."
            )
        notice(f"open {address}")
        notice("press Ctrl-C to end; every label is on disk at once")
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        uvicorn.Server(config).run(sockets=[listening])
