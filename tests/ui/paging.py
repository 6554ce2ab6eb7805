"""A page on a real socket, over models that are loaded, in a thread of the tests."""

import contextlib
import threading
import time

from serving import PLAIN

from moejax.serve import server
from moejax.serve.service import Limits, Service
from moejax.ui.desk import Desk
from moejax.ui.sounds import Sounds

LIMITS = Limits(batch_wait=0.01, megabytes=8.0, seconds=60.0)


@contextlib.contextmanager
def desk(models, folder, kind=Desk, **options):
    """A desk over a service of its own."""
    service = Service(models, LIMITS, **PLAIN)
    (folder / "sounds").mkdir(parents=True)
    try:
        yield kind(service, Sounds(folder / "sounds"), **options)
    finally:
        service.finish()


@contextlib.contextmanager
def served(found, folder, trainer=None):
    """The address of the page of a desk."""
    from moejax.ui import layout

    app = layout.build(found, folder / "uploads", trainer)
    with server.bound("127.0.0.1", 0) as place:
        running = server.Server(app, found.service, lifespan="on", timeout_graceful_shutdown=1)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [place]})
        thread.start()
        try:
            while not running.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            running.handle_exit(15, None)
            thread.join(60)
            assert not thread.is_alive()
