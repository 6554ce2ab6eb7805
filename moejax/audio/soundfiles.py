"""Files that libsndfile opens (WAV, FLAC, MP3, OGG ...), block by block.

What libsndfile leaves out without a word is looked for before: it gets the file as it ought to stand (`wav`, `mpeg`,
`ogg`), several one after the other where several are joined.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
import soundfile

from moejax.audio import declared, mpeg, ogg, wav
from moejax.audio.conform import conform
from moejax.audio.flaws import Flaws, Undecodable
from moejax.audio.spliced import whole

BLOCK_FRAMES = 1 << 17  # 1 MB of stereo
MAX_CHANNELS = 32
_STEP = 4096  # frames asked for at once: what is read together with a broken place is lost


Rest = Callable[[int], Iterator[np.ndarray]]


class NotKnown(Undecodable):
    """libsndfile does not know the format; somebody else may."""


@dataclass(frozen=True)
class Found:
    """An open recording: `blocks` [S] or [S, channels] float32 at `rate`.

    `direct`: libsndfile alone reads the same from the file as it lies. `seek(frame)`, where there is one, makes the
    blocks begin there; before the first is taken.
    """

    rate: int
    blocks: Iterator[np.ndarray]
    direct: bool = False
    seek: Callable[[int], int] | None = None


@contextlib.contextmanager
def opened(stream: BinaryIO, flaws: Flaws, rest: Rest | None = None) -> Iterator[Found]:
    """A recording in a seekable stream. `rest(frame)` gives the blocks from there on by other means, if there are any.

    Errors: `Undecodable`, the blocks' too; `NotKnown`, a kind of it.
    """
    stream.seek(0)
    head = stream.read(12)
    streams, direct = _streams(stream, head, flaws)
    with contextlib.ExitStack() as stack:
        files = [_file(one, stack) for one in streams]
        first = files[0]
        if first.channels > MAX_CHANNELS:
            raise Undecodable("wrong_shape", f"{first.channels} channels; at most {MAX_CHANNELS}")
        reader = _Reader(first, flaws, rest)
        if len(files) == 1:
            yield Found(first.samplerate, iter(reader), direct, None if _is_mpeg(first) else reader.seek)
            return
        readers = [reader, *(_Reader(file, flaws) for file in files[1:])]
        blocks = ((block.reshape(len(block), -1), one.file.samplerate) for one in readers for block in one)
        yield Found(first.samplerate, conform(blocks, first.samplerate, first.channels))


def _streams(stream, head, flaws) -> tuple[list, bool]:
    """(streams for libsndfile, whether that is the file itself)."""
    if wav.known(head):
        mended, changed = wav.mended(stream, flaws)
        return [mended], not changed
    if head[:4] == b"OggS":
        links = ogg.links(stream, flaws)
        return links or [whole(stream)], len(links) < 2
    if head[:4] in declared.HEADS and len(head) == 12:
        declared.check(stream, head, flaws)
    elif head[:4] != b"fLaC":
        if parts := mpeg.parts(stream, flaws):
            heard = [part.stream(stream) for part in parts if part.frames]
            if not heard:  # a header, and no frame behind it
                raise Undecodable("empty", "no samples")
            return heard, False
    return [whole(stream)], True


class _Straight(soundfile.SoundFile):
    """Read from beginning to end. After each read soundfile seeks to where it stands already, which in an MP3 is
    another place by some hundred samples, and in a damaged FLAC the end of all reading; not where it cannot seek.
    """

    def seekable(self) -> bool:
        return False


def _file(stream, stack) -> soundfile.SoundFile:
    try:
        with hushed():
            return stack.enter_context(_Straight(cast(BinaryIO, stream)))
    except soundfile.SoundFileError as error:
        raise NotKnown("unreadable", _first_line(error)) from error


def promised(path) -> float:
    """Seconds by the header of a file; 0 where libsndfile does not know (its reading will say what is wrong)."""
    try:
        with hushed():
            return soundfile.info(str(path)).duration
    except (soundfile.SoundFileError, OSError):
        return 0.0


class _Reader:
    """Blocks of one open file. At their end: whether they are as many as its header says."""

    def __init__(self, file, flaws: Flaws, rest: Rest | None = None):
        self.file, self.flaws, self.rest, self.found = file, flaws, rest, 0
        self.quiet = hushed if _is_mpeg(file) else contextlib.nullcontext

    def seek(self, frame: int) -> int:
        """Where the next block begins then."""
        self.found = self.file.seek(min(frame, self.file.frames))
        return self.found

    def __iter__(self) -> Iterator[np.ndarray]:
        file, broken = self.file, False
        while not broken:
            steps, held = [], 0
            with self.quiet():
                while held < BLOCK_FRAMES:
                    try:
                        step = file.read(_STEP, dtype="float32")
                    except soundfile.SoundFileError:
                        broken = True
                        break
                    if not len(step):
                        break
                    steps.append(step)
                    held += len(step)
            if not held:
                break
            self.found += held
            yield np.concatenate(steps)
        if broken and self.rest and not self.flaws.whole:
            at = self.found
            for block in self.rest(at):
                self.found += len(block)
                yield block
            broken = self.found == at
            if not broken:
                self.flaws.add("unreadable", f"damaged at {at / self.file.samplerate:.2f} s")
        self._check(broken)

    def _check(self, broken: bool):
        frames, rate = self.file.frames, self.file.samplerate
        # The length of an MP3 without a header of its own is an estimate
        slack = max(4800, frames // 100) if _is_mpeg(self.file) else 0
        if broken or self.found < frames - slack:
            promised, there = f"{frames / rate:.2f} s", f"{self.found / rate:.2f} s"
            self.flaws.add("truncated", f"truncated: the header promises {promised}, {there} can be read")


def _is_mpeg(file) -> bool:
    """Whether it has MP3 in it, in a WAV perhaps: lengths and places are not exact there."""
    return file.format == "MP3" or "MPEG" in file.subtype


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].removeprefix("Error opening the recording: ")


class _Hush:
    """Keeps what C libraries print off the terminal: libmpg123, inside libsndfile, has opinions on every file.

    File descriptor 2 belongs to the process: it leads nowhere while anybody reads MPEG audio, in any thread.
    """

    def __init__(self):
        self._lock, self._depth, self._kept = threading.Lock(), 0, -1

    def __enter__(self):
        with self._lock:
            self._depth += 1
            if self._depth > 1:
                return
            try:
                self._kept = os.dup(2)
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, 2)
                os.close(nowhere)
            except OSError:  # there is no such descriptor: nobody is told anything
                self._kept = -1

    def __exit__(self, *exception):
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._kept >= 0:
                os.dup2(self._kept, 2)
                os.close(self._kept)


_HUSH = _Hush()


def hushed() -> _Hush:
    """A context in which nothing that a C library prints reaches the terminal."""
    return _HUSH
