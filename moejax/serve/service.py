"""The service without its routes: a queue, one thread that runs the models, limits. A page or a test may stand on it.

Requests that ask the same of the same model are read together. A recording may join while others are being read, as
soon as a row of the batch is free; no text depends on the company that it had.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.decode.enrolled import Context
from moejax.recognizer import Recognizer
from moejax.serve.declined import Declined, field, stopping
from moejax.serve.metrics import Metrics
from moejax.serve.models import Models, Which
from moejax.text.transcript import Transcript

log = logging.getLogger(__name__)
PATIENCE = 2.0  # seconds for which a batch takes more of its own kind while another kind waits
STALLED = 30.0  # seconds that a service that ends waits for an upload that does not go on
JOINING = 1000  # recordings of a batch, those that joined it with them: its memory ends with it


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server takes. `batch_wait` seconds for company; `waiting` seconds of audio that may queue (an hour is 230
    MB of memory); `seconds` of one recording; `megabytes` of one upload.
    """

    batch_size: int = 8
    batch_wait: float = 0.05
    megabytes: float = 25.0
    seconds: float = 3600.0
    waiting: float = 4 * 3600.0


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a request wants, checked: by which recogniser, with which options of `transcribe`, for whom."""

    which: Which
    options: tuple[tuple[str, Any], ...] = ()
    context: Context | None = None

    @property
    def group(self) -> tuple:
        """Requests with the same are read together; each keeps its own speaker's phrases."""
        return self.which, self.options


@dataclasses.dataclass(eq=False)
class Job:
    """One recording, float32 [S] at 16 kHz, with its answer to be; `said` is told the text so far."""

    wave_S: np.ndarray
    wanted: Wanted
    said: Callable[[str], None] | None = None
    answer: concurrent.futures.Future[Transcript] = dataclasses.field(default_factory=concurrent.futures.Future)
    arrived: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return len(self.wave_S) / SAMPLE_RATE

    def tell(self, text: str) -> None:
        """Who asked may have gone, which is no reason to stop reading the others."""
        if self.said is not None:
            with contextlib.suppress(Exception):
                self.said(text)


class Service:
    """Takes recordings from any thread, answers each by a future."""

    def __init__(self, models: Models, limits: Limits | None = None, **options: Any):
        """`options` of `transcribe` hold for all requests, which may not change them."""
        self.models, self.limits, self.options, self.metrics = models, limits or Limits(), options, Metrics()
        self._changed = threading.Condition()
        self._queue: collections.deque[Job] = collections.deque()
        self._reading = self._visitors = 0
        self._closed = self._ended = False
        self._worker = threading.Thread(target=self._work, name="moejax-serve", daemon=True)
        self._worker.start()

    # What requests call

    def want(
        self,
        model: str,
        *,
        system: str | None = None,
        speaker: str | None = None,
        route: tuple[float, ...] | None = None,
        **options: Any,
    ) -> Wanted:
        """What a request wants of a model, checked before any work. Loads a system that is not there yet.

        Errors: Declined, whose `param` is the field at fault.
        """
        name, options = self.models.name(model), {**options, **self.options}
        which = self.models.which(name, system=system, route=route, task=options.get("task", "transcribe"))
        recognizer = self.models.get(which)
        if "language" in options:
            with field("language"):
                recognizer.check(language=options["language"])
        if "initial_prompt" in options:
            options["initial_prompt"] = _fitting(options["initial_prompt"], recognizer)
        with field(None):
            asked = recognizer.check(**options)
        context = None
        if speaker is not None:
            which, context = self.models.voice(which, speaker)
        if context is not None and (asked.target or asked.algorithm == "pieces"):
            raise Declined(400, "invalid_value", f"model {name!r} takes no speaker's phrases for this", "speaker")
        return Wanted(which, tuple(sorted(options.items())), context)

    def submit(self, wave_S: np.ndarray, wanted: Wanted, said: Callable[[str], None] | None = None) -> Job:
        """Queues a recording. Errors: Declined: too long (413), too much waits (503), stopping (503)."""
        job = Job(wave_S, wanted, said)
        if job.seconds > self.limits.seconds:
            raise too_long(self.limits.seconds)
        with self._changed:
            if self._ended or (self._closed and not self._visitors):
                raise stopping()
            if self._queue and self._waiting() + job.seconds > self.limits.waiting:
                raise Declined(503, "busy", f"{self._waiting():.0f} s of audio wait already; try again later")
            self._queue.append(job)
            self._gauge()
            self._changed.notify_all()
        return job

    @contextlib.contextmanager
    def visit(self) -> Iterator[None]:
        """A request from its beginning to its answer: whoever is in before the service closes is served.

        Errors: Declined (503) once it is closed.
        """
        with self._changed:
            if self._closed:
                raise stopping()
            self._visitors += 1
        try:
            yield
        finally:
            with self._changed:
                self._visitors -= 1
                self._changed.notify_all()

    # What whoever runs it calls

    @property
    def open(self) -> bool:
        """Whether it takes requests, and its worker is there to read them."""
        return not self._closed and self._worker.is_alive()

    def close(self) -> None:
        """Takes nothing more from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def finish(self, stalled: float = STALLED) -> None:
        """Closes, waits until everybody is answered, and ends the worker. Uploads that are not there after `stalled`
        seconds are not waited for.
        """
        self.close()
        until = time.monotonic() + stalled
        with self._changed:
            while self._queue or self._reading or (self._visitors and time.monotonic() < until):
                self._changed.wait(0.5)
            self._ended = True
            self._changed.notify_all()
        self._worker.join()

    # The worker

    def _waiting(self) -> float:
        return sum(job.seconds for job in self._queue)

    def _gauge(self):
        self.metrics.set("moejax_queue_length", len(self._queue))
        self.metrics.set("moejax_queue_audio_seconds", self._waiting())
        self.metrics.set("moejax_reading", self._reading)

    def _work(self):
        while (batch := self._gather()) is not None:
            started = time.monotonic()
            try:
                _Batch(self, batch).run()
            except Exception:  # of our own: the worker goes on, or everybody after this would wait for ever
                log.exception("a batch failed")
            self.metrics.add("moejax_busy_seconds_total", time.monotonic() - started)

    def _gather(self) -> list[Job] | None:
        """The next recordings that are read together: the oldest and those that want the same, when they are enough or
        it has waited long enough for company. None when the service is closed and nothing is left.
        """
        limits = self.limits
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._queue or self._ended)
                if not self._queue:
                    return None
                group, until = self._queue[0].wanted.group, self._queue[0].arrived + limits.batch_wait
                alike = [job for job in self._queue if job.wanted.group == group]
                left = until - time.monotonic()
                if len(alike) >= limits.batch_size or left <= 0 or self._closed:
                    taken = [job for job in alike[: limits.batch_size] if self._take(job)]
                    if taken:
                        return taken
                else:
                    self._changed.wait(left)

    def more(self, group: tuple) -> Job | None:
        """One more recording of this kind, unless somebody of another kind has waited for it too long."""
        with self._changed:
            while True:
                late = time.monotonic() - PATIENCE
                if any(job.arrived < late and job.wanted.group != group for job in self._queue):
                    return None
                job = next((job for job in self._queue if job.wanted.group == group), None)
                if job is None or self._take(job):
                    return job

    def _take(self, job: Job) -> bool:
        """Takes a recording out of the queue; False if nobody waits for its answer any more."""
        self._queue.remove(job)
        taken = job.answer.set_running_or_notify_cancel()
        self._reading += taken
        self._gauge()
        self._changed.notify_all()
        if taken:
            self.metrics.observe("moejax_batch_size", self._reading)
            self.metrics.observe("moejax_wait_seconds", time.monotonic() - job.arrived)
        return taken

    def answered(self, job: Job, transcript: Transcript | None, error: BaseException | None = None) -> None:
        """Gives a recording its answer, or what went wrong; its samples are needed no more."""
        seconds, job.wave_S = job.seconds, np.zeros(0, np.float32)
        with self._changed:
            self._reading -= 1
            self._gauge()
            self._changed.notify_all()
        self.metrics.add("moejax_audio_seconds_total", seconds, model=job.wanted.which.model)
        if error is not None:
            job.answer.set_exception(error)
        elif transcript is not None:
            job.answer.set_result(transcript)


class _Batch:
    """Recordings that are read together, with those that join them."""

    def __init__(self, service: Service, jobs: list[Job]):
        self.service, self.first = service, jobs
        self.group, self.options = jobs[0].wanted.group, dict(jobs[0].wanted.options)
        self.which = jobs[0].wanted.which
        self.jobs: list[Job] = []
        self.contexts: list[Context | None] = []
        self.left: set[int] = set()  # places without an answer

    def run(self) -> None:
        """Every recording gets an answer: where reading them together fails, each is read alone."""
        try:
            recognizer = self.service.models.get(self.which)
            for place, transcript in self._stream(recognizer, self._waves()):
                self._answer(place, transcript)
            failed = None
        except Exception as error:
            log.exception("%d recordings could not be read together; each is read alone", len(self.left) or 1)
            failed = error
        for job in self.first[len(self.jobs) :]:  # who had not begun
            self._join(job)
        for place in sorted(self.left):
            self._alone(place, failed)

    def _stream(self, recognizer: Recognizer, waves):
        size = self.service.limits.batch_size
        told = lambda place, text: self.jobs[place].tell(text)  # noqa: E731
        options = {**self.options, "batch_size": size}
        return recognizer.stream(waves, said=told, contexts=self.contexts, **options)

    def _join(self, job: Job):
        self.left.add(len(self.jobs))
        self.jobs.append(job)
        self.contexts.append(job.wanted.context)

    def _waves(self):
        for job in self.first:
            self._join(job)
            yield job.wave_S
        while len(self.jobs) < JOINING:
            job = self.service.more(self.group)
            if job is None:
                yield None
            else:
                self._join(job)
                yield job.wave_S

    def _alone(self, place: int, failed: BaseException | None):
        job = self.jobs[place]
        try:
            recognizer = self.service.models.get(self.which)
            told = lambda _, text: job.tell(text)  # noqa: E731
            found = recognizer.stream([job.wave_S], said=told, contexts=[job.wanted.context], **self.options)
            self._answer(place, next(iter(found))[1])
        except Exception as error:
            error.__context__ = failed
            self.left.discard(place)
            self.service.answered(job, None, error)

    def _answer(self, place: int, transcript: Transcript):
        self.left.discard(place)
        self.service.answered(self.jobs[place], transcript)


def too_long(seconds: float) -> Declined:
    """For a recording that is longer than the server takes."""
    return Declined(413, "too_long", f"the recording is longer than {seconds:g} s, which is the most here", "file")


def _fitting(prompt: str, recognizer: Recognizer) -> str:
    """The end of a prompt, as much as the model takes (half its positions): OpenAI's API takes any and uses the end."""
    room, found = recognizer.config.max_target_positions // 2 - 1, prompt
    while len(recognizer.tokenizer.encode(found)) > room:
        found = found[max(1, len(found) // 16) :]
    head, blank, rest = found.partition(" ")
    return rest if blank and len(found) < len(prompt) and len(head) < 30 else found  # no half word at its beginning
