"""The application behind the page: JSON under ``/api``, pictures by number, one page."""

from __future__ import annotations

import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import partial
from importlib import resources

import anyio
from anyio.to_thread import run_sync
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daso.data.images.encoded import WORKERS
from daso.errors import DasoError, DataError
from daso.files import Row, plain
from daso.label.preparation import Preparation
from daso.label.session import Session
from daso.label.training import Trainer
from daso.label.web.guard import Guard, cookie_name
from daso.label.web.thumbnails import Thumbnails

MOST_IMAGES = 500
"""Images of one request."""
MOST_REMEMBERED = 2_000
"""Actions whose repetition is recognized: a browser sends an action again if no answer came."""
LONGEST_NAME = 200
"""Characters of a new class."""
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
IMMUTABLE = {"Cache-Control": "private, max-age=31536000, immutable"}


class Api:
    """Answers the requests of the page.

    Args:
        session: labels, suggestions and beliefs.
        pictures: of the session's images.
        trainer: trains again.
        preparation: computes the features by which images are compared.
    """

    def __init__(
        self, session: Session, pictures: Thumbnails, trainer: Trainer, preparation: Preparation
    ) -> None:
        self.session, self.pictures, self.trainer = session, pictures, trainer
        self.preparation = preparation
        self._answered: OrderedDict[str, Row] = OrderedDict()
        self._acting = threading.Lock()
        self._picture_threads = anyio.CapacityLimiter(WORKERS)

    # What the page asks for.

    def state(self, request: Request | None = None) -> Row:
        return {
            **self.session.state(),
            "training": self.trainer.state(),
            "features": self.preparation.state(),
        }

    def suggest(self, request: Request) -> Row:
        version = self.session.version  # first: images of later ones are asked for again
        images = self.session.suggest(_integer(request, "count", 24, 1, MOST_IMAGES))
        return {"version": version, "images": images}

    def believed(self, request: Request) -> Row:
        label = _text(request.query_params.get("label"), "label")
        start = _integer(request, "start", 0, 0, 10**9)
        return self.session.believed(label, start, _integer(request, "count", 48, 1, MOST_IMAGES))

    def similar(self, request: Request) -> Row:
        count = _integer(request, "count", 48, 1, MOST_IMAGES)
        return {"images": self.session.similar(self._image(request), count)}

    def doubtful(self, request: Request) -> Row:
        return {"images": self.session.doubtful(_integer(request, "count", 48, 1, MOST_IMAGES))}

    def describe(self, request: Request) -> Row:
        return self.session.describe(self._image(request))

    async def picture(self, request: Request) -> Response:
        """Return the picture of an image as wide as asked; 1,536 pixels under ``/full``."""
        image = self._image(request)
        side = _integer(request, "side", 1536, 1, 4096)
        made = await run_sync(self.pictures.picture, image, side, limiter=self._picture_threads)
        status, headers = (404, {}) if made.missing else (200, IMMUTABLE)
        return Response(made.content, status, headers, made.media_type)

    # What the page changes.

    def act(self, name: str, sent: Row) -> Row:
        """Do an action once, however often it is sent, and return the new state."""
        key = sent.get("action")
        if not isinstance(key, str) or not 8 <= len(key) <= 64:
            raise DataError("action: a text of 8 to 64 characters is needed, another each time")
        with self._acting:
            if key not in self._answered:
                self._answered[key] = ACTIONS[name](self, sent) or {}
                while len(self._answered) > MOST_REMEMBERED:
                    self._answered.popitem(last=False)
            return {**self.state(), **self._answered[key]}

    def assign(self, sent: Row) -> None:
        images, label = self._images(sent), _text(sent.get("label"), "label")
        self.session.assign(images, label, _seconds(sent), key=sent["action"])

    def decide(self, decision: Callable[..., Row], sent: Row) -> None:
        decision(*self._images(sent), key=sent["action"])

    def undo(self, sent: Row) -> Row:
        count = sent.get("count", 1)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_IMAGES:
            raise DataError(f"count: an integer from 1 to {MOST_IMAGES} is needed")
        return {"undone": self.session.undo(count, sent["action"])["undone"]}

    def add_class(self, sent: Row) -> None:
        name = _text(sent.get("name"), "name").strip()
        if len(name) > LONGEST_NAME:
            raise DataError(f"name: has over {LONGEST_NAME} characters")
        self.session.add_class(name, sent["action"])

    def _images(self, sent: Row) -> list[int]:
        images = sent.get("images")
        if not isinstance(images, list) or not 1 <= len(images) <= MOST_IMAGES:
            raise DataError(f"images: a list of 1 to {MOST_IMAGES} numbers is needed")
        for image in images:
            self.session.images.check(image)
        return list(dict.fromkeys(images))

    def _image(self, request: Request) -> int:
        text = request.path_params.get("image", request.query_params.get("image", ""))
        image = _parsed(text, "image")
        self.session.images.check(image)
        return image


ACTIONS: dict[str, Callable[[Api, Row], Row | None]] = {
    "assign": Api.assign,
    "none": lambda api, sent: api.decide(api.session.none, sent),
    "skip": lambda api, sent: api.decide(api.session.skip, sent),
    "keep": lambda api, sent: api.decide(api.session.keep, sent),
    "undo": Api.undo,
    "class": Api.add_class,
    "compare": lambda api, _: api.preparation.repeat(),
    "train": lambda api, _: api.trainer.start(),
    "cancel": lambda api, _: api.trainer.cancel(),
}


def create_app(
    api: Api, name: str, identity: str, token: str, hosts: Collection[str], port: int
) -> Guard:
    """Return the application.

    Args:
        name: of the data, for the page.
        identity: text that is another for other images, so that a browser sends nothing meant for
            those.
        token: secret that the first address carries.
        hosts: the values of Host that are meant, with the port.
        port: on which the server listens.
    """
    templates = Environment(
        loader=PackageLoader("daso.label.web", "page"), autoescape=True, undefined=StrictUndefined
    )
    page = templates.get_template("page.html").render(
        name=name.encode(errors="replace").decode(),
        token=token,
        identity=identity,
        stamp=secrets.token_hex(4),
    )
    refused = templates.get_template("refused.html").render()

    async def show_page(request: Request) -> Response:
        answer = Response(page, media_type="text/html")
        answer.set_cookie(cookie_name(port), token, httponly=True, samesite="strict")
        return answer

    static = {
        file.name: (file.read_bytes(), MEDIA_TYPES[ending])
        for file in resources.files("daso.label.web.page").iterdir()
        if (ending := file.name[file.name.rfind(".") :]) in MEDIA_TYPES
    }
    numbers = resources.files("daso.report.html.templates").joinpath("numbers.js").read_bytes()
    static["numbers.js"] = (numbers + b"export { fixed, percent };\n", MEDIA_TYPES[".js"])

    async def show_file(request: Request) -> Response:
        if (file := static.get(request.path_params["name"])) is None:
            raise HTTPException(404, "there is no such file")
        return Response(file[0], headers={"Cache-Control": "no-cache"}, media_type=file[1])

    asked = {
        "state": api.state,
        "suggest": api.suggest,
        "believed": api.believed,
        "similar": api.similar,
        "doubtful": api.doubtful,
        "image/{image}": api.describe,
        "progress": lambda _: api.session.progress(),
    }
    routes = [
        Route("/", show_page),
        Route("/static/{name}", show_file),
        Route("/thumb/{image}", api.picture),
        Route("/full/{image}", api.picture),
        *(Route(f"/api/{path}", partial(_answer, answer)) for path, answer in asked.items()),
        *(
            Route(f"/api/{action}", partial(_act, api, action), methods=["POST"])
            for action in ACTIONS
        ),
    ]
    inner = Starlette(
        routes=routes,
        exception_handlers={DasoError: _explain, HTTPException: _explain, Exception: _apologize},
    )
    return Guard(inner, token, hosts, port, refused)


async def _answer(answer: Callable[[Request], Row], request: Request) -> Response:
    return _json(await run_sync(answer, request))


async def _act(api: Api, name: str, request: Request) -> Response:
    try:
        sent = await request.json()
    except (ValueError, RecursionError):
        raise DataError("the body is not JSON") from None
    if not isinstance(sent, dict):
        raise DataError("the body is not an object")
    return _json(await run_sync(api.act, name, sent))


async def _explain(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    text = error.detail if isinstance(error, HTTPException) else str(error)
    return _json({"error": text}, status)


async def _apologize(request: Request, error: Exception) -> Response:
    text = f"an error of daso itself ({type(error).__name__}); the terminal shows more"
    return _json({"error": text}, 500)


def _json(row: Row, status: int = 200) -> Response:
    """Return an answer in ASCII: names of files need not be valid UTF-8."""
    return Response(json.dumps(plain(row)), status, media_type="application/json")


def _parsed(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 12:
        raise DataError(f"{name} = {text[:40]!r}: a number is needed")
    return int(text)


def _integer(request: Request, name: str, default: int, least: int, most: int) -> int:
    text = request.query_params.get(name)
    value = default if text is None else _parsed(text, name)
    if not least <= value <= most:
        raise DataError(f"{name} = {value}: must be from {least} to {most:,}")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{name}: a text is needed")
    return value


def _seconds(sent: Row) -> float | None:
    """Return how long the person took; None if it was not said, or makes no sense."""
    value = sent.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 86_400:
        return None
    return round(float(value), 3)
