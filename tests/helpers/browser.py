"""Chromium without a window, driven over its debugging protocol: what a reader of a report would see."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
LONG = 60.0
"""Seconds after which a browser that does not answer is given up."""


class Page:
    """An open page.

    Attributes:
        errors: what it wrote to the console as an error, and exceptions that nothing caught.
        requests: the addresses that it asked for, except data addresses.
    """

    def __init__(self, address: str) -> None:
        self._socket = websocket.create_connection(address, timeout=LONG, suppress_origin=True)
        self._number = 0
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return dict(message["result"])
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        match event["method"], event["params"]:
            case "Runtime.exceptionThrown", {"exceptionDetails": details}:
                self.errors.append(json.dumps(details))
            case "Log.entryAdded", {"entry": entry} if entry["level"] == "error":
                self.errors.append(entry["text"])
            case "Runtime.consoleAPICalled", {"type": "error" | "assert", "args": said}:
                self.errors.append(json.dumps(said))
            case "Network.requestWillBeSent", {"request": request} if not request["url"].startswith(
                "data:"
            ):
                self.requests.append(request["url"])
            case "Page.loadEventFired", _:
                self._loaded = True

    def open(self, path: Path) -> None:
        """Open a file and wait until it is loaded."""
        self._loaded = False
        self.send("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._note(json.loads(self._socket.recv()))

    def look(self, width: int, height: int, theme: str = "light") -> None:
        """Set the size of the window in pixels, and whether the system asks for a light or a dark page."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": theme}],
        )

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page; a promise is waited for."""
        result = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press a key that writes no text, such as Tab or ArrowDown."""
        codes = {
            "Tab": 9,
            "Enter": 13,
            " ": 32,
            "ArrowLeft": 37,
            "ArrowUp": 38,
            "ArrowRight": 39,
            "ArrowDown": 40,
        }
        text = {"Enter": "\r", " ": " "}.get(key, "")
        values = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **values)
        self.send("Input.dispatchKeyEvent", type="keyUp", **values)

    def picture(self, whole: bool = True) -> bytes:
        """Return a PNG file of the page, the part below the window too."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])


@contextlib.contextmanager
def open_browser() -> Iterator[Page]:
    """Start Chromium and give a blank page; it ends with the context."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        command = [
            CHROMIUM,
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={home}",
        ]
        command += [
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
        ]
        command += [
            "--disable-background-networking",
            "--disable-sync",
            "--no-default-browser-check",
        ]
        if os.name == "posix" and os.geteuid() == 0:
            command.append("--no-sandbox")  # the sandbox cannot be had as root
        with subprocess.Popen([*command, "about:blank"], stderr=subprocess.DEVNULL) as process:
            try:
                yield Page(_address(Path(home), process))
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _address(home: Path, process: subprocess.Popen[bytes]) -> str:
    """Return where the debugger of the first page listens."""
    from urllib.request import urlopen

    end = time.monotonic() + LONG
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            port = int((home / "DevToolsActivePort").read_text().split("\n")[0])
            with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=LONG) as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.05)
    raise RuntimeError(f"Chromium did not start (exit status {process.poll()})")
