"""An upload as samples. What comes over the net is bytes in memory or in a file without a name, never a path."""

from typing import BinaryIO, NamedTuple

import numpy as np

from moejax.audio import read
from moejax.audio.flaws import Rejected
from moejax.serve.declined import Declined
from moejax.serve.service import too_long


class Recording(NamedTuple):
    """Samples [S] at 16 kHz, none where it is silent; how long it is; one line for each thing that is wrong."""

    wave_S: np.ndarray
    seconds: float
    flaws: tuple[str, ...]


def heard(stream: BinaryIO, most: float) -> Recording:
    """The recording in a seekable stream of bytes, as `Recognizer.read` reads it; at most `most` seconds, beyond which
    nothing is decoded (a small file may hold days).

    Errors: Declined, 413 for what is too long, 400 for what cannot be used, with its reason as code.
    """
    try:
        found = _load(stream, most)
        return Recording(found.samples, found.seconds, found.flaws)
    except Rejected as rejected:
        if rejected.reason == "silent":
            found = _load(stream, most, silence_db=float("-inf"))
            return Recording(np.zeros(0, np.float32), found.seconds, (f"silent: {rejected.what}",))
        if rejected.reason == "too_long":
            raise too_long(most) from rejected
        raise Declined(
            400, rejected.reason, f"the recording is {rejected.reason}: {rejected.what}", "file"
        ) from rejected


def _load(stream, most, **more):
    stream.seek(0)
    return read.load(stream, whole=False, min_seconds=0.0, max_seconds=most, **more)
