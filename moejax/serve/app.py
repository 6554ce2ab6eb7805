"""The routes of OpenAI's audio API over a `Service`; with `uploads` the only files that import FastAPI."""

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import anyio
import python_multipart  # noqa: F401 - without it a form fails only when it comes
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from moejax.errors import Refused
from moejax.serve import fields, formats, recordings
from moejax.serve.declined import Declined
from moejax.serve.models import FIRST
from moejax.serve.service import Job, Service
from moejax.serve.uploads import Upload
from moejax.text.transcript import Transcript

log = logging.getLogger(__name__)
OPENING = 4  # uploads that are decoded at once
LOOK = 0.5  # seconds between looks whether a client is still there
ALIVE = 15.0  # seconds after which a stream says that it is, for proxies that close silent ones
STREAM = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
Answer = Callable[[Request], Awaitable[Response]]


def build(service: Service, *, keys: Sequence[str] = (), origins: Sequence[str] = ()) -> FastAPI:
    """The application. `keys`: one of them is the bearer of every request, none lets everybody in; `origins`: pages
    of which may call it from a browser.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # its pages would load scripts from the net
    routes = _Routes(service, [key.encode() for key in keys])
    app.add_api_route("/health", routes.health, methods=["GET"])
    app.add_api_route("/metrics", routes.shown("metrics", routes.metrics), methods=["GET"])
    app.add_api_route("/v1/models", routes.shown("models", routes.models), methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", routes.shown("models", routes.model), methods=["GET"])
    for name, translate in (("transcriptions", False), ("translations", True)):
        app.add_api_route(f"/v1/audio/{name}", routes.audio(name, translate), methods=["POST"])
    app.add_exception_handler(HTTPException, _no_route)
    if origins:
        headers = ["Authorization", "Content-Type"]
        app.add_middleware(
            CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"], allow_headers=headers
        )
    return app


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    known = "/v1/audio/transcriptions, /v1/audio/translations, /v1/models, /health, /metrics"
    code = {404: "unknown_route", 405: "wrong_method"}.get(status, "bad_request")
    return _refusal(Declined(status, code, f"{request.method} {request.url.path[:100]}: there is {known}"))


def _refusal(declined: Declined) -> Response:
    headers = {"Retry-After": "5"} if declined.status == 503 else {}
    headers |= {"WWW-Authenticate": "Bearer"} if declined.status == 401 else {}
    return JSONResponse(declined.body(), declined.status, headers)


def _declined(error: BaseException) -> Declined:
    """What a client is told of an error; of a bug no more than that there is one."""
    if isinstance(error, Declined):
        return error
    if isinstance(error, Refused):
        return Declined(400, "invalid_value", str(error))
    log.error("a request failed", exc_info=error)
    return Declined(500, "internal", "this request failed by a fault of the server; its log says more")


class _Routes:
    def __init__(self, service: Service, keys: Sequence[bytes]):
        self.service, self.keys, self.numbers = service, keys, service.metrics
        self.opening = anyio.CapacityLimiter(OPENING)

    async def health(self) -> Response:
        """For whoever looks whether it runs: no key is asked for, and nothing is told."""
        return JSONResponse({"status": "ok" if self.service.open else "stopping"}, 200 if self.service.open else 503)

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(self.numbers.text(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self.service.models.names]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(self._model(self.service.models.name(name)) | ({"id": name} if name == FIRST else {}))

    def _model(self, name):
        return {"id": name, "object": "model", "created": self.service.models.loaded_at, "owned_by": "moejax"}

    def shown(self, route: str, handler: Answer) -> Answer:
        """A handler behind the key."""

        async def guarded(request: Request) -> Response:
            started = time.monotonic()
            try:
                self._check_key(request)
                response = await handler(request)
            except Exception as error:
                response = self._failed(error)
            self._count(route, response.status_code, started)
            return response

        return guarded

    def audio(self, route: str, translate: bool) -> Answer:
        """A handler that takes a recording."""

        async def guarded(request: Request) -> Response:
            started, upload = time.monotonic(), Upload(request, self.service.limits.megabytes)
            try:
                self._check_key(request)
                with self.service.visit():
                    job, asked, heard = await self._accepted(upload, translate)
                    if asked.stream:
                        return StreamingResponse(self._events(route, job, started), headers=STREAM)
                    transcript = await self._transcript(request, job)
                media, content = formats.render(transcript, asked.form, heard, asked.granularities)
                response = Response(content, media_type=media)
            except ClientDisconnect:
                self.numbers.add("moejax_errors_total", kind="disconnected")
                response = Response(status_code=499)  # nobody hears it
            except Exception as error:
                await upload.drain()
                response = self._failed(error)
            self._count(route, response.status_code, started)
            return response

        return guarded

    def _failed(self, error: Exception) -> Response:
        declined = _declined(error)
        self.numbers.add("moejax_errors_total", kind=declined.code)
        return _refusal(declined)

    def _count(self, route: str, status: int, started: float):
        self.numbers.add("moejax_requests_total", route=route, status=str(status))
        self.numbers.observe("moejax_request_seconds", time.monotonic() - started, route=route)

    def _check_key(self, request: Request):
        if not self.keys:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        # all are compared, each in the same time, however alike: time tells nothing of them
        same = [hmac.compare_digest(given.strip().encode(), key) for key in self.keys]
        if kind.lower() != "bearer" or not any(same):
            raise Declined(401, "invalid_api_key", "this server wants a key: Authorization: Bearer KEY")

    async def _accepted(self, upload: Upload, translate: bool) -> tuple["_Told", fields.Asked, formats.Heard]:
        """A request in the queue. What is wrong with its fields is said before its recording is decoded."""
        async with upload.form() as (items, file):
            asked = fields.asked(items, translate=translate)
            wanted = await anyio.to_thread.run_sync(lambda: self.service.want(**asked.chosen, **asked.options))
            most = self.service.limits.seconds
            recording = await anyio.to_thread.run_sync(recordings.heard, file, most, limiter=self.opening)
        told = _Told(asyncio.get_running_loop())
        told.job = self.service.submit(recording.wave_S, wanted, told.said if asked.stream else None)
        heard = formats.Heard("translate" if translate else "transcribe", recording.seconds, recording.flaws)
        return told, asked, heard

    async def _transcript(self, request: Request, told: "_Told") -> Transcript:
        """The answer, or ClientDisconnect when nobody waits for it: what had not begun is not read then."""
        answer = asyncio.wrap_future(told.job.answer)
        while not answer.done():
            await asyncio.wait({answer}, timeout=LOOK)
            if not answer.done() and await request.is_disconnected():
                told.job.answer.cancel()
                raise ClientDisconnect()
        return answer.result()

    async def _events(self, route: str, told: "_Told", started: float) -> AsyncIterator[str]:
        """Text as it comes, window by window, and the whole at the end."""
        answer, sent, status = asyncio.wrap_future(told.job.answer), "", 499
        answer.add_done_callback(lambda _: told.texts.put_nowait(None))
        try:
            while True:
                try:
                    text = await asyncio.wait_for(told.texts.get(), ALIVE)
                except TimeoutError:
                    yield ": still reading\n\n"
                    continue
                if text is None:
                    break
                text = text.rstrip("\ufffd").strip()  # half a letter, of which the next window may bring the rest
                if text.startswith(sent) and len(text) > len(sent):
                    yield formats.event("transcript.text.delta", delta=text[len(sent) :])
                    sent = text
            text = answer.result().text.strip()
            if text.startswith(sent) and len(text) > len(sent):
                yield formats.event("transcript.text.delta", delta=text[len(sent) :])
            yield formats.event("transcript.text.done", text=text)
            status = 200
        except Exception as error:
            status = 500
            declined = _declined(error)
            self.numbers.add("moejax_errors_total", kind=declined.code)
            yield formats.failure(declined.body())
        finally:
            if status == 499:  # the client has gone
                told.job.answer.cancel()
                with contextlib.suppress(asyncio.InvalidStateError, asyncio.CancelledError):
                    answer.exception()
                self.numbers.add("moejax_errors_total", kind="disconnected")
            self._count(route, status, started)


class _Told:
    """A job, and what its thread tells the loop of its text."""

    job: Job

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.loop, self.texts = loop, asyncio.Queue[str | None]()

    def said(self, text: str) -> None:
        self.loop.call_soon_threadsafe(self.texts.put_nowait, text)
