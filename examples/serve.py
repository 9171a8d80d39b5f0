"""Serve an exported model over HTTP, without torch.

    daso export runs/birds --format onnx --out birds.onnx
    pip install onnxruntime pillow numpy
    pip install --no-deps daso          # only its decoder of images is used
    python serve.py birds.onnx --port 8000
    curl --data-binary @photo.jpg http://localhost:8000/predict

answers {"class": "wren", "confidence": 0.93, "probabilities": {"wren": 0.93, "tit": 0.05, ...}}.
By default it accepts connections from this computer only; put it behind a proxy that authenticates.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from daso.data.images.decode import LargeImageError, UnknownImageError, decode_for_model
from daso.errors import DataError

MAX_BYTES = 10_000_000
MAX_PIXELS = 50_000_000
MAX_CONCURRENT = 8
READ_TIMEOUT_SECONDS = 10
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class RefusedError(Exception):
    """A request that is answered with an error status and the reason."""


class Model:
    """An exported model: bytes of an image file in, probabilities out."""

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise SystemExit(
                f"{path} does not exist; write it with daso export RUN --format onnx --out {path}"
            )
        try:
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            facts = self._session.get_modelmeta().custom_metadata_map
            self.class_names: list[str] = json.loads(facts["class_names"])
            self.channels, self.height, self.width = json.loads(facts["input_shape"])
        except KeyError as error:
            raise SystemExit(
                f"{path} was not written by daso export: its metadata has no {error}"
            ) from error
        except ValueError as error:  # a model of vectors has one number
            raise SystemExit(f"{path} is not a model of images") from error
        except Exception as error:  # onnxruntime does not export its exceptions
            raise SystemExit(f"{path}: {str(error).splitlines()[0]}") from error

    def predict(self, content: bytes) -> dict[str, Any]:
        """Return the answer for an image file as JSON values, or raise a ``RefusedError``."""
        probs = self._session.run(None, {"images": self._pixels(content)[None]})[0][0]
        named = dict(zip(self.class_names, (round(float(p), 6) for p in probs), strict=True))
        best = max(named, key=lambda name: named[name])
        return {"class": best, "confidence": named[best], "probabilities": named}

    def _pixels(self, content: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Decode as in training and in ``daso predict``."""
        try:
            return decode_for_model(content, (self.channels, self.height, self.width))
        except UnknownImageError as error:
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error)) from error
        except LargeImageError as error:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error
        except DataError as error:
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error


class Handler(BaseHTTPRequestHandler):
    """POST /predict with an image file as the body; GET /health for the class names."""

    model: Model
    busy = threading.BoundedSemaphore(MAX_CONCURRENT)
    timeout = READ_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(HTTPStatus.OK, {"classes": self.model.class_names})
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "POST an image to /predict"})

    def do_POST(self) -> None:
        try:
            if self.path != "/predict":
                raise RefusedError(HTTPStatus.NOT_FOUND, "POST an image to /predict")
            content = self._body()
            if not self.busy.acquire(blocking=False):
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "busy; try again")
            try:
                self._answer(HTTPStatus.OK, self.model.predict(content))
            finally:
                self.busy.release()
        except RefusedError as refused:
            status, reason = refused.args
            self.close_connection = True  # the rest of the body is not read
            self._answer(status, {"error": reason})

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is None:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "Content-Length is missing")
        if not (length.isascii() and length.isdigit()):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Content-Length must be a number")
        if int(length[:12]) > MAX_BYTES:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BYTES:,} bytes"
            )
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            raise RefusedError(
                HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length"
            )
        return content

    def _answer(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="an .onnx file of daso export")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free port")
    options = parser.parse_args()
    Handler.model = Model(options.model)
    try:
        server = ThreadingHTTPServer((options.host, options.port), Handler)
    except (OSError, OverflowError) as error:
        place = f"{options.host}, port {options.port}"
        raise SystemExit(f"cannot serve on {place}: {error}; use another --port") from error
    with server:
        print(f"http://{options.host}:{server.server_port}/predict", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
