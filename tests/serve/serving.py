"""A real server on a real socket, in a thread of the tests."""

import contextlib
import io
import threading
import time
from types import SimpleNamespace

import httpx
import soundfile
from prometheus_client.parser import text_string_to_metric_families
from tiny_model import RATE

from moejax.errors import BadValue
from moejax.serve import app, server
from moejax.serve.models import Which
from moejax.serve.service import Limits, Service
from moejax.text.transcript import Transcript

# Random weights fail every threshold: without these each window would be heard at six temperatures, and withheld.
PLAIN = {"guards": "none", "logprob_threshold": None, "compression_ratio_threshold": None}
LIMITS = Limits(batch_size=8, batch_wait=0.05, megabytes=8.0, seconds=120.0)


class Running:
    """`url`, `service`, and the thread that serves."""

    def __init__(self, service, **settings):
        self.service = service
        place = server.bound("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{place.getsockname()[1]}"
        self.server = server.Server(app.build(service, **settings), service)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [place]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self):
        """As SIGTERM does it."""
        if not self.server.leaving:
            self.server.handle_exit(15, None)
        self.thread.join(60)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def running(models, limits=LIMITS, *, options=PLAIN, **settings):
    """A server of its own over models that are loaded."""
    found = Running(Service(models, limits, **options), **settings)
    try:
        yield found
    finally:
        found.stop()


class Slow:
    """Stands for a recogniser and for the models of a service: says how many samples it heard, when it may.

    A recording that begins with 9 fails whatever it is read with; `together` says how many were asked for at once.
    """

    def __init__(self):
        self.go, self.together, self.names, self.loaded_at = threading.Event(), [], ["slow"], 0
        self.go.set()
        self.config = SimpleNamespace(max_target_positions=448)

    def name(self, asked):
        return "slow"

    def which(self, name, **_):
        return Which(name)

    def get(self, which):
        return self

    def check(self, **options):
        if options.get("language") == "xx":
            raise BadValue("unknown language 'xx'")
        return SimpleNamespace(target="", algorithm="sequential")

    def stream(self, waves, said=None, contexts=None, batch_size=0, **options):
        open_, place = [], 0
        for wave_S in waves:
            if wave_S is not None:
                open_.append((place, wave_S))
                place += 1
            if wave_S is None or len(open_) >= max(batch_size, 1):
                if not open_:
                    return
                self.together.append(len(open_))
                assert self.go.wait(60)
                if any(len(wave) and wave[0] == 9 for _, wave in open_):
                    raise RuntimeError("cannot be read")
                yield from ((at, transcript(wave, options)) for at, wave in open_)
                open_ = []
        yield from ((at, transcript(wave, options)) for at, wave in open_)


def transcript(wave_S, options):
    return Transcript(f"{len(wave_S)} {options.get('language', '')}".strip(), [], "en")


def wav(wave_S, subtype="FLOAT", format="WAV") -> bytes:
    """The bytes of a sound file."""
    out = io.BytesIO()
    soundfile.write(out, wave_S, RATE, subtype=subtype if format == "WAV" else None, format=format)
    return out.getvalue()


def until(said):
    """What `said()` gives as soon as it gives something."""
    for _ in range(3000):
        if found := said():
            return found
        time.sleep(0.01)
    raise AssertionError("it did not come about")


def numbers(place) -> dict:
    """{(name, labels): value} of /metrics, read as Prometheus reads them."""
    text = httpx.get(f"{place.url}/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}
