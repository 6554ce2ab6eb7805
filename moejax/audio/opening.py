"""Opening a recording, whatever it is in: libsndfile where it can, PyAV where it cannot and is there; one in a shard by
its `records.reference`.
"""

import contextlib
import functools
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from moejax.audio import media, records, soundfiles
from moejax.audio.flaws import Flaws, Rejected, Undecodable
from moejax.audio.soundfiles import Found


@contextlib.contextmanager
def opened(source: str | Path | bytes | BinaryIO, flaws: Flaws) -> Iterator[Found]:
    """The open recording; errors, and those while blocks are read, are `Rejected`."""
    name = os.path.basename(source) if isinstance(source, str | Path) else "the recording"
    try:
        with _stream(source) as stream, _found(stream, flaws) as found:
            yield found
    except Undecodable as error:
        raise Rejected(error.reason, error.detail, name) from error
    except OSError as error:
        raise Rejected("unreadable", error.strerror or str(error), name) from error


@contextlib.contextmanager
def _found(stream, flaws):
    stream.seek(0)
    container = media.kind(stream.read(2 * media.PACKET))
    with contextlib.ExitStack() as stack:
        if container is not None:
            yield stack.enter_context(media.opened(stream, container, flaws))
            return
        try:
            found = stack.enter_context(soundfiles.opened(stream, flaws, functools.partial(_rest, stream)))
        except soundfiles.NotKnown as unknown:
            found = stack.enter_context(_otherwise(stream, unknown, flaws))
        yield found


def _rest(stream, frame: int) -> Iterator[np.ndarray]:
    """What FFmpeg reads from this frame on, behind damage at which libsndfile gives up; nothing where it is not."""
    with contextlib.suppress(Undecodable), media.opened(stream, "this", Flaws(whole=False)) as found:
        at = 0
        for block in found.blocks:
            if at + len(block) > frame:
                yield block[max(0, frame - at) :]
            at += len(block)


@contextlib.contextmanager
def _otherwise(stream, unknown, flaws):
    """What libsndfile does not know, by FFmpeg, which knows a hundred formats more, some by the file's name only. What
    should be FLAC and is not is damaged: FFmpeg finds its way in, but a corpus wants it whole.
    """
    name = getattr(stream, "name", "")
    name = os.path.basename(name) if isinstance(name, str) else ""
    if flaws.whole and name.rpartition(".")[2].upper() in soundfile.available_formats():
        name = ""
    try:
        media.library("other")
    except ModuleNotFoundError as error:
        more = "PyAV, which is not installed, reads more; pip install 'moejax[media]'"
        raise Undecodable("unreadable", f"not a format that libsndfile knows; {more}") from error
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(media.opened(stream, "this", flaws, name))
        except Undecodable as error:
            raise Undecodable("unreadable", f"no sound that libsndfile or FFmpeg knows ({unknown.detail})") from error
        yield found


def excerpt(path: str, offset: float, seconds: float | None) -> tuple[np.ndarray, int]:
    """(samples [S] or [S, channels], rate) of `seconds` (None: all) from `offset` on. Errors: `Rejected`."""
    if not records.parted(path):
        check_file(path)
    flaws = Flaws(whole=False)  # what lies outside of the excerpt is of no matter
    with opened(path, flaws) as found:
        rate, start = found.rate, round(offset * found.rate)
        skip, wanted = start, float("inf") if seconds is None else round(seconds * rate)
        if found.seek is not None:
            skip -= found.seek(start)
        kept, have = [], 0
        for block in found.blocks:
            passed = min(skip, len(block))
            block, skip = block[passed:], skip - passed
            kept.append(block if have + len(block) <= wanted else block[: int(wanted) - have])
            have += len(kept[-1])
            if have >= wanted:
                break
        if not have or have < wanted - rate // 10 and seconds is not None:
            asked = f"{offset:g} + {(seconds or 0):g} s"
            raise Rejected("truncated", f"{asked} asked, {(start - skip + have) / rate:.2f} s there", path)
        if seconds is None and flaws.lines:
            raise Rejected("truncated", flaws.lines[0], path)
    return np.concatenate(kept), rate


def _stream(source):
    if packed := records.parted(source):
        return io.BytesIO(records.fetch(*packed).audio)
    if isinstance(source, str | Path):
        check_file(source)
        return open(source, "rb")
    return io.BytesIO(source) if isinstance(source, bytes) else contextlib.nullcontext(source)


def check_file(path: str | Path) -> None:
    """Raises `Rejected("unreadable")` unless this is a plain file: opening a pipe or a device may wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise Rejected("unreadable", getattr(error, "strerror", None) or str(error), str(path)) from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise Rejected("unreadable", f"{kind}, not a file", str(path))
