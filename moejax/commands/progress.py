"""The progress bar of commands that go through recordings: seconds of audio, time left, times faster than speech."""

import sys
import time

from tqdm import tqdm

from moejax.audio.constants import SAMPLE_RATE
from moejax.audio.soundfiles import promised

_FORMAT = "{desc} {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]{postfix}"


class Progress:
    """A bar on stderr when that is a terminal, and one line at the end; silent otherwise.

    The total is what files' headers say, put right when a file is opened; containers that only PyAV reads count from
    then on.
    """

    def __init__(self, sources, stream=None):
        self.stream = stream or sys.stderr
        self.shown = self.stream.isatty()
        self.seconds = [promised(source.path) if self.shown and source.path else 0.0 for source in sources]
        self.at = [0.0] * len(sources)
        self.finished: set[int] = set()
        self.started = time.perf_counter()
        self.bar = tqdm(
            total=sum(self.seconds) or None,
            disable=not self.shown,
            file=self.stream,
            bar_format=_FORMAT,
            desc=f"0/{len(sources)} files",
            leave=False,
            mininterval=0.2,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()
        if self.shown and self.finished:
            audio, took = sum(self.at), time.perf_counter() - self.started
            speed = f"{audio / took:.1f} x real time (factor {took / audio:.3f})" if audio else "no sound"
            count = f"{len(self.finished)} file" + ("s" if len(self.finished) > 1 else "")
            print(f"{count}, {audio:.1f} s of audio in {took:.1f} s: {speed}", file=self.stream)

    def opened(self, number: int, samples: int):
        """A recording was read: its true length is known."""
        self.seconds[number] = samples / SAMPLE_RATE
        self.bar.total = sum(self.seconds) or None

    def heard(self, number: int, seconds: float):
        """So many seconds of a recording are done."""
        self._move(number, min(seconds, self.seconds[number]))

    def done(self, number: int):
        """A recording is finished, or has failed before it was opened."""
        self.finished.add(number)
        self._move(number, self.seconds[number])
        self.bar.set_description_str(f"{len(self.finished)}/{len(self.at)} files", refresh=True)

    def each(self, items):
        """The items, of every source one, in order; a source is done when the next one is asked for."""
        for number, item in enumerate(items):
            yield item
            self.done(number)

    def print(self, text: str):
        """Writes to stdout without tearing the bar; as UTF-8 where its encoding has not all of the text's letters."""
        with tqdm.external_write_mode(file=sys.stdout, nolock=False):
            try:
                text.encode(sys.stdout.encoding or "utf-8")
                sys.stdout.write(text)
            except UnicodeEncodeError:  # an ASCII terminal, a name that is no text: question marks help nobody
                sys.stdout.flush()
                sys.stdout.buffer.write(text.encode("utf-8", errors="surrogateescape"))
            sys.stdout.flush()

    def _move(self, number, seconds):
        step, self.at[number] = seconds - self.at[number], seconds
        took = time.perf_counter() - self.started
        self.bar.set_postfix_str(f"{sum(self.at) / took:.1f} x real time", refresh=False)
        self.bar.update(step)
