"""The process around the routes: a socket, and what happens when it is asked to stop."""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn

from moejax.errors import BadValue
from moejax.serve.service import Service


def bound(host: str, port: int) -> socket.socket:
    """A socket at that address, not listening yet: a port that is taken is known before models are loaded.

    Errors: BadValue.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as stack:
            found = stack.enter_context(socket.socket(family, kind, protocol))
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            stack.pop_all()
        return found
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise BadValue(f"--host {host} --port {port}: {why}; --port 0 takes one that is free") from error


class Server(uvicorn.Server):
    """Asked to stop (SIGTERM, Ctrl-C) it still listens: new requests are told so, and when everybody who was accepted
    has an answer it leaves. Asked again, it leaves at once.
    """

    def __init__(self, app, service: Service, ready: Callable[[], None] | None = None, **settings: Any):
        """`settings` are uvicorn's."""
        settings = {"lifespan": "off", **settings}
        config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, **settings)
        super().__init__(config)
        self.service, self.ready, self.leaving = service, ready, False

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        if self.ready is not None:
            self.ready()

    def handle_exit(self, sig, frame) -> None:
        if self.leaving:
            self.force_exit = self.should_exit = True
            return
        self.leaving = True
        # in a thread: this one may hold the lock of the service at the moment
        threading.Thread(target=self._leave, name="moejax-serve-leave", daemon=True).start()

    def _leave(self):
        self.service.finish()
        self.should_exit = True
