"""The one loop: every stage that trains anything calls `fit`.

Order within step n, which resuming depends on: next batch; dispatch the step; fetch and write the metrics of step n -
1 (by now done, so the device never waits for Python); evaluate; save. Before a save the metrics of step n itself are
written, so that a checkpoint never stands without the records up to it.
"""

import contextlib
import dataclasses
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from moejax.errors import BadValue, NotFinite, Preempted
from moejax.runtime import faults, processes, watchdog
from moejax.train.checkpoint import Checkpointer
from moejax.train.metrics import MetricLog
from moejax.train.state import TrainState, check_finite
from moejax.types import Array, Params

PLAIN_EVERY_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Batches:
    """What is trained on.

    `source` is an iterator of batches with get_state() and set_state(dict); `place(batch)` puts one on the devices;
    `names(n)` are the utterances of batch n (from 0), to say whose update was left out.
    """

    source: Any
    place: Callable[[Any], Any] = lambda batch: batch
    names: Callable[[int], list[str]] | None = None


@dataclasses.dataclass(frozen=True)
class Cadence:
    """How many steps there are, and after how many something is done.

    Metrics of every `log_every`th step (and the last) go to metrics.jsonl and TensorBoard; `eval_every` 0: after the
    last step alone. The run stops when `max_skipped` updates were left out (NotFinite); 0: never.
    """

    steps: int
    checkpoint_every: int
    log_every: int
    eval_every: int = 0
    max_skipped: int = 0


@dataclasses.dataclass(frozen=True)
class Home:
    """Where a training lives: `folder`/checkpoints, the newest `keep` of them, metrics.jsonl; what it is called in the
    log. `identity` {what: text}, such as digests of the frozen base and the data, is stored; a checkpoint whose
    identity is another is refused (BadValue naming the difference), or taken all the same with `force`.
    """

    folder: Path
    name: str = ""
    identity: Mapping[str, str] = dataclasses.field(default_factory=dict)
    force: bool = False
    keep: int = 2
    progress: bool = True

    @property
    def desc(self) -> str:
        return self.name or Path(self.folder).name


def fit(
    state: TrainState,
    frozen: Params,
    step_fn: Callable[[TrainState, Params, Any], tuple[TrainState, dict[str, Array]]],
    batches: Batches,
    cadence: Cadence,
    home: Home,
    *,
    eval_fn: Callable[[TrainState, Params], Mapping[str, float]] | None = None,
    on_metrics: Callable[[int, dict[str, np.ndarray]], list[str] | None] | None = None,
) -> TrainState:
    """The state after all steps, resumed from the newest checkpoint if there is one.

    state       TrainState as placed on the devices; donated: do not use it afterwards. Also the template for restoring.
    step_fn     (state, frozen, batch) -> (state, {name: array}), of `state.make_step`.
    eval_fn     (state, frozen) -> {name: number}; logged as eval/<name> and saved: of the first number the lowest
                makes a checkpoint the best, which is kept. It must not keep the arrays of the state, and must draw its
                own randomness from the step, or resuming shows in the log.
    on_metrics  (step, metrics) -> strings or None: alarms, logged as warnings.
    Returns at once when the checkpoint of the last step stands. Raises Preempted after saving on SIGTERM or SIGINT (a
    second SIGINT interrupts at once), BadValue when the newest checkpoint is past the steps.
    """
    check_finite(state)
    checkpoints = Checkpointer(Path(home.folder) / "checkpoints", keep=home.keep)
    with contextlib.closing(checkpoints):
        state, start = _resumed(state, checkpoints, batches, cadence, home)
        if start == cadence.steps:
            return state
        first = jax.process_index() == 0
        records = _Records(
            Path(home.folder) if first else None, start, int(state.skipped), on_metrics, batches, cadence
        )
        ticker = _Ticker(home.desc, start, cadence.steps, shown=home.progress and first)
        with contextlib.closing(records), contextlib.closing(ticker), _StopRequest(start) as stop:
            pending, saved = None, start
            for n in range(start + 1, cadence.steps + 1):
                with ticker.waiting():
                    batch = next(batches.source)
                state, metrics = step_fn(state, frozen, batches.place(batch))
                faults.point("train.step")
                if pending is not None:
                    records.settle(*pending, ticker, saved)
                watchdog.beat()
                checkpoints.check()
                last, stopping = n == cadence.steps, stop.asked(n)
                score, evaluate = None, _is_evaluated(n, eval_fn, cadence)
                if eval_fn is not None and evaluate:
                    scores = eval_fn(state, frozen)
                    metrics = {**metrics, **{f"eval/{name}": value for name, value in scores.items()}}
                    score = float(next(iter(scores.values())))
                    score = score if math.isfinite(score) else None
                pending = (n, metrics, bool(n % cadence.log_every == 0 or last or evaluate))
                if last or stopping or evaluate or n % cadence.checkpoint_every == 0:
                    records.settle(*pending, ticker, saved)
                    pending = None
                    checkpoints.save(n, state, batches.source.get_state(), {"identity": dict(home.identity)}, score)
                    saved = n
                ticker.advance(n)
                if stopping and not last:
                    checkpoints.wait()
                    raise Preempted(f"{home.desc}: stopped on request; step {saved} of {cadence.steps} is saved")
            return state


def best(state: TrainState, home: Home) -> TrainState | None:
    """The state of the best checkpoint, like the last one, `state`; None where the last is the best that stands."""
    with contextlib.closing(Checkpointer(Path(home.folder) / "checkpoints", keep=home.keep)) as checkpoints:
        found = checkpoints.best()
        return None if found is None or found["step"] == int(state.step) else checkpoints.restore_best(state)


def _is_evaluated(step, eval_fn, cadence) -> bool:
    every = cadence.eval_every
    return eval_fn is not None and (step == cadence.steps or bool(every and step % every == 0))


def _resumed(state, checkpoints, batches, cadence, home):
    """`(state, its step)` of the newest checkpoint, the data at its place; what was given without one."""
    found = checkpoints.restore_latest(state)
    if not found:
        return state, 0
    state, data, kept = found
    start = int(state.step)
    if start > cadence.steps:
        raise BadValue(f"{home.folder}: the newest checkpoint is of step {start}, past the {cadence.steps} asked for")
    _same_run(kept.get("identity", {}), home.identity, Path(home.folder), start, home.force)
    if start < cadence.steps:
        batches.source.set_state(data)
        log.info("%s resumes from step %d of %d", home.desc, start, cadence.steps)
    return state, start


def _same_run(kept, identity, folder, step, force):
    """Refuses a checkpoint of another base or other data, or says that it is taken all the same."""
    differ = sorted(name for name in {*kept, *identity} if kept.get(name) != identity.get(name))
    if not differ:
        return
    said = "; ".join(f"{name} was {kept.get(name, 'absent')}, is {identity.get(name, 'absent')}" for name in differ)
    if not force:
        raise BadValue(f"{folder}: the checkpoint of step {step} is of another run: {said}; --force goes on with it")
    log.warning("%s: going on from step %d of another run: %s", folder, step, said)


class _Records:
    """Fetches metrics from the device and writes them; tells of skipped steps, counts them, and passes on alarms."""

    def __init__(self, folder, start, skipped, on_metrics, batches, cadence):
        self._log = MetricLog(folder, start) if folder else None
        self._on_metrics, self._names, self._began = on_metrics, batches.names, time.monotonic()
        self._skipped, self._max_skipped, self._good = skipped, cadence.max_skipped, start

    def settle(self, step, metrics, wanted, ticker, saved):
        """Looks at a step that is done: writes its metrics if they are `wanted`, notices when its update was left out.

        Raises NotFinite; `saved` is the step of the newest checkpoint, for its message.
        """
        values = {name: np.asarray(value) for name, value in jax.device_get(metrics).items()} if wanted else {}
        skipped = int(values["skipped"] if wanted else metrics["skipped"]) if "skipped" in metrics else 0
        if wanted:
            if self._log:
                self._log.write(step, values, seconds=time.monotonic() - self._began)
            ticker.show(values)
        if skipped > self._skipped:
            self._skipped = skipped
            who = f"; utterances {', '.join(self._names(step - 1))}" if self._names else ""
            ticker.say(f"step {step}: loss or gradient not finite, update left out ({skipped} so far){who}")
            if self._max_skipped and skipped >= self._max_skipped:
                raise NotFinite(
                    f"{skipped} updates were left out because loss or gradient was not finite, the last at step {step}"
                    f"{who}; the last good step is {self._good}, the newest checkpoint is of step {saved}"
                )
        else:
            self._good = step
        if wanted:
            for alarm in (self._on_metrics(step, values) if self._on_metrics else None) or ():
                ticker.say(f"step {step}: {alarm}")

    def close(self):
        if self._log:
            self._log.close()


class _Ticker:
    """Progress on stderr: a bar with ETA on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, desc, start, steps, shown):
        self._desc, self._start, self._steps, self._shown = desc, start, steps, shown
        self._began = self._last = time.monotonic()
        self._done, self._values = start, ""
        self._first, self._waited = None, 0.0
        terminal = shown and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=start, desc=desc, unit="step", file=sys.stderr) if terminal else None

    @contextlib.contextmanager
    def waiting(self):
        """Around what waits for data: its share of the time stands beside the count."""
        began = time.monotonic()
        yield
        if self._first is None:
            self._first = time.monotonic()  # the first batch starts the loader, which is no waiting
        else:
            self._waited += time.monotonic() - began

    def _wait(self):
        """What was waited for data, of the time since the first batch."""
        if self._first is None or (passed := time.monotonic() - self._first) <= 0:
            return ""
        return f"data {100 * self._waited / passed:.1f} %"

    def show(self, values):
        """Remember what to print beside the count."""
        if "loss" in values:
            self._values = f"loss {float(values['loss']):.4g}"

    def advance(self, step):
        """Step `step` was dispatched."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join(filter(None, [self._values, self._wait()])), refresh=False)
            self._bar.update(step - self._done)
        elif self._shown and (now - self._last > PLAIN_EVERY_SECONDS or step == self._steps):
            self._last, rate = now, (now - self._began) / (step - self._start)
            left = rate * (self._steps - step)
            line = f"{self._desc}: step {step}/{self._steps}  {self._values}  {1e3 * rate:.0f} ms/step"
            print(f"{line}  {self._wait()}  {left:.0f} s left", file=sys.stderr, flush=True)
        self._done = step

    def say(self, message):
        """A warning in the log that does not tear the bar."""
        if self._bar is not None:
            self._bar.clear()
        log.warning("%s %s", self._desc, message)

    def close(self):
        if self._bar is not None:
            self._bar.close()


class _StopRequest:
    """Context in which SIGTERM and SIGINT ask the loop to save and leave instead of ending the process.

    Several processes agree on the step after which all of them stop. Only the main thread may set handlers; elsewhere
    signals keep theirs.
    """

    def __init__(self, start):
        self._number, self._before = 0, {}
        self._steps = processes.Steps(start, lambda: bool(self._number))

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        self._steps.__enter__()
        return self

    def _note(self, number, frame):
        del frame
        self._number = number
        signal.signal(number, self._before[number])  # the second one acts at once

    def asked(self, step):
        """True if the run is to stop after `step`; every process asks at every step."""
        return self._steps.asked(step)

    def __exit__(self, kind, error, trace):
        if kind is None and self._steps.finished():
            self._number = self._number or signal.SIGTERM
        self._steps.__exit__()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._number and kind is None:  # asked during the last step: whoever listened before is to hear it
            signal.raise_signal(self._number)
