"""Files that libsndfile opens (WAV, FLAC, MP3, OGG ...), block by block.

libsndfile reads a truncated WAV without a word: what the header promises is compared with what is there.
"""

import contextlib
import io
import struct
from collections.abc import Iterator
from typing import BinaryIO, cast

import numpy as np
import soundfile

from moejax.audio.media import Undecodable

BLOCK_FRAMES = 1 << 17  # 1 MB of stereo
MAX_CHANNELS = 32
_MAX_CHUNKS = 1000  # before the samples of a WAV; a file of zeros would be a million chunks of nothing


@contextlib.contextmanager
def opened(stream: BinaryIO) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """(rate, blocks [S] or [S, channels] float32) of a seekable file. Errors: `Undecodable`, the blocks' too."""
    promised, present = _wav_data_bytes(stream)
    if present < promised:
        detail = f"the header promises {promised} bytes of samples, the file has {present}"
        raise Undecodable("truncated", detail)
    stream.seek(0)
    try:
        file = soundfile.SoundFile(cast(BinaryIO, _Calm(stream)))  # soundfile calls what _Calm has, no more
    except soundfile.SoundFileError as error:
        raise Undecodable("unreadable", _first_line(error)) from error
    with file:
        if file.channels > MAX_CHANNELS:
            raise Undecodable("wrong_shape", f"{file.channels} channels; at most {MAX_CHANNELS}")
        yield file.samplerate, _blocks(file)


class _Calm:
    """A stream for libsndfile's callbacks, in which an exception is printed and lost: a place that a broken header
    names and the file does not have is not gone to.
    """

    def __init__(self, stream: BinaryIO):
        self.read, self.tell, self._stream = stream.read, stream.tell, stream

    def __repr__(self):  # soundfile's messages say what they opened
        return "the recording"

    def seek(self, offset, whence=io.SEEK_SET):
        with contextlib.suppress(OSError, ValueError, OverflowError):
            self._stream.seek(offset, whence)
        return self.tell()


def _blocks(file):
    frames, found = file.frames, 0
    while True:
        try:
            block = file.read(BLOCK_FRAMES, dtype="float32")
        except soundfile.SoundFileError as error:
            detail = f"not decodable up to the {frames} samples its header promises ({_first_line(error)})"
            raise Undecodable("truncated", detail) from error
        if not len(block):
            break
        found += len(block)
        yield block
    # The length of an MP3 is an estimate that includes the encoder's padding.
    slack = max(4800, frames // 100) if file.format == "MP3" else 0
    if found < frames - slack:
        raise Undecodable("truncated", f"the header promises {frames} samples, {found} are there")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _wav_data_bytes(stream: BinaryIO) -> tuple[int, int]:
    """(bytes the `data` chunk promises, bytes that follow its header) of a RIFF, RIFX or RF64 file; (0, 0) if none.

    Writers to a pipe leave 0 or 0xFFFFFFFF as the length: that promises nothing.
    """
    stream.seek(0, io.SEEK_END)
    end = stream.tell()
    stream.seek(0)
    head = stream.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:] != b"WAVE":
        return 0, 0
    order = ">" if head[:4] == b"RIFX" else "<"
    long_data = None
    for _ in range(_MAX_CHUNKS):
        if len(chunk := stream.read(8)) < 8:
            break
        size = struct.unpack(order + "I", chunk[4:])[0]
        if chunk[:4] == b"ds64":
            body = stream.read(min(size, 16))
            if len(body) == 16:
                long_data = struct.unpack("<Q", body[8:16])[0]
            stream.seek(size + (size & 1) - len(body), io.SEEK_CUR)
            continue
        if chunk[:4] == b"data":
            if size == 0xFFFFFFFF:
                size = long_data or 0
            return size, end - stream.tell()
        stream.seek(size + (size & 1), io.SEEK_CUR)
    return 0, 0
