"""The serving example answers as ``daso predict`` and refuses hostile requests."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made_files import encoded, png_header, png_of_chunks
from PIL import Image

import daso
from daso.export.run import export_run

pytest.importorskip("onnxruntime")
EXAMPLE = Path(__file__).parent.parent / "examples" / "serve.py"


@pytest.fixture(scope="module")
def run_folder(
    make_image_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from daso.data.open import open_source
    from daso.train.config import RunConfig
    from daso.train.options import TrainOptions
    from daso.train.prepare import prepare
    from daso.train.run import train_run

    folder, images = tmp_path_factory.mktemp("serve") / "run", str(make_image_folder())
    options = TrainOptions(steps=10, batch=8, network="small-4", evaluate_every=5, device="cpu")
    config = RunConfig(source=images, method="supervised", train=options)
    list(train_run(prepare(config, open_source(images)), folder))
    export_run(folder, "onnx", folder.parent / "model.onnx", warn=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def port(run_folder: Path) -> Iterator[int]:
    command = [sys.executable, str(EXAMPLE), str(run_folder.parent / "model.onnx"), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline()
        yield int(address.rsplit(":", 1)[1].split("/")[0])
        server.terminate()


HUGE = png_of_chunks(png_header(40_000, 40_000, kind=0), (b"IDAT", zlib.compress(b"\0" * 100)))
"""A few hundred bytes that claim to be 40,000 x 40,000 pixels."""


def ask(
    port: int, content: bytes, path: str = "/predict", method: str = "POST"
) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, content or None)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def send(port: int, request: bytes) -> tuple[int, dict[str, object]]:
    """Send a raw request, end it, and return what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


def test_it_answers_as_the_model_does(run_folder: Path, port: int) -> None:
    random = np.random.default_rng(0)
    wide = Image.fromarray(random.integers(0, 256, (20, 33, 3), dtype=np.uint8))
    exif = wide.getexif()
    exif[0x0112] = 6
    clear = wide.copy()
    clear.putalpha(100)
    contents = [
        encoded(wide),
        encoded(wide, "JPEG", exif=exif),
        encoded(clear),
        encoded(wide.convert("P")),
        encoded(wide.convert("L")),
        encoded(Image.fromarray(np.asarray(wide.convert("L")).astype(np.uint16) * 257)),
        encoded(wide, "AVIF"),
    ]
    model = daso.load(run_folder, "cpu", warn=lambda _: None)
    expected = model.predict(contents).probabilities
    for content, probs in zip(contents, expected, strict=True):
        status, answer = ask(port, content)
        assert status == 200
        named = answer["probabilities"]
        assert isinstance(named, dict)
        np.testing.assert_allclose([named[name] for name in model.class_names], probs, atol=2e-6)
        assert answer["class"] == model.class_names[int(probs.argmax())]
        assert answer["confidence"] == max(named.values())
    assert ask(port, b"", "/health", "GET") == (200, {"classes": ["blue", "green", "red"]})


def test_what_is_no_image_is_refused(port: int) -> None:
    for content, status in (
        (b"", 415),
        (b"<html>", 415),
        (HUGE, 413),
        (encoded(Image.new("RGB", (60, 60), "red"))[:-40], 422),
        (encoded(Image.fromarray(np.zeros((60, 60), np.float32)), "TIFF"), 422),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", 415),
    ):
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        answered, answer = send(port, head.encode() + content)
        assert (answered, list(answer)) == (status, ["error"]), content[:20]


def test_requests_that_lie_are_refused(port: int) -> None:
    for headers, status in (
        ("Content-Length: 10000001", 413),
        ("Content-Length: 99999999999999999999", 413),
        ("Content-Length: -1", 400),
        ("Content-Length: many", 400),
        ("Content-Length: 50", 400),
        ("Transfer-Encoding: chunked", 411),
        ("", 411),
    ):
        lines = "\r\n".join(filter(None, ["POST /predict HTTP/1.1", "Host: x", headers]))
        assert send(port, f"{lines}\r\n\r\nshort".encode())[0] == status, headers
        assert ask(port, encoded(Image.new("RGB", (8, 8))))[0] == 200


def test_it_needs_no_torch(run_folder: Path) -> None:
    code = (
        "import runpy, sys; sys.modules |= dict.fromkeys(('torch', 'scipy', 'rich', 'tyro')); "
        f"print(runpy.run_path({str(EXAMPLE)!r})['Model']({str(run_folder.parent / 'model.onnx')!r})"
        ".channels)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3"


def test_other_paths(port: int) -> None:
    assert ask(port, b"x", "/elsewhere")[0] == 404
    assert ask(port, b"", "/predict", "GET")[0] == 404


def test_what_is_no_model_is_told_in_a_line(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    for content, reason in ((None, "does not exist"), (b"no model", "model.onnx: ")):
        if content is not None:
            model.write_bytes(content)
        command = [sys.executable, str(EXAMPLE), str(model)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_port_that_cannot_be_used_is_told_in_a_line(run_folder: Path, port: int) -> None:
    model = str(run_folder.parent / "model.onnx")
    for number in (port, 70_000):
        command = [sys.executable, str(EXAMPLE), model, "--port", str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert f"port {number}" in done.stderr
        assert "another --port" in done.stderr
