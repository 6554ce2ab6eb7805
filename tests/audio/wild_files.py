"""Files as they are met in the wild, written in memory: sound in many formats, with headers that lie."""

import io
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE, SECONDS = 16000, 3.0


def voice(rate=RATE, seconds=SECONDS, channels=1):
    """A tone with syllables, louder on the left; no two moments are alike."""
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * (300 + 60 * time) * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))
    return np.stack([wave * 0.9**channel for channel in range(channels)], axis=1).astype(np.float32)


def sounds(format, subtype=None, endian=None, rate=RATE, channels=1, seconds=SECONDS):
    stream = io.BytesIO()
    soundfile.write(stream, voice(rate, seconds, channels), rate, format=format, subtype=subtype, endian=endian)
    return stream.getvalue()


def wav(size=None, riff=None, behind=b"", cut=0, before=b""):
    """16-bit mono, with this length declared; chunks before and behind the samples."""
    data = np.round(voice()[:, 0] * 32767).astype("<i2").tobytes()
    size = len(data) if size is None else size
    data = data[: len(data) - cut]
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16) + before
    head += b"data" + struct.pack("<I", size)
    riff = len(head) + len(data) + len(behind) if riff is None else riff
    return b"RIFF" + struct.pack("<I", riff) + head + data + behind


def encoded(container, codec, rate=RATE, channels=1, *, seconds=SECONDS, start=0.0, gap=(), picture=0.0, **more):
    """By FFmpeg; the sound starts at `start`, leaves out what is between the two times of `gap`."""
    moving, options = more.get("moving", "mpeg4"), more.get("options", {})
    av = pytest.importorskip("av")
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    samples, size = voice(rate, seconds, channels), 960
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name, "a")  # a file, because some indexes are moved to its beginning afterwards
    with folder, av.open(str(path), "w", format=container, options=options) as file:
        track = file.add_stream(codec, rate=rate, layout=layout)
        track.bit_rate = 96000
        video = file.add_stream(moving, rate=10, width=32, height=32, pix_fmt="yuv420p") if picture else None
        for number in range(round(picture * 10)):
            frame = av.VideoFrame(32, 32, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts = number
            file.mux(video.encode(frame))
        if video:
            file.mux(video.encode(None))
        if codec in ("pcm_s16be", "pcm_mulaw", "pcm_alaw"):
            track.codec_context.format = "s16"
        resampler = av.AudioResampler(format=track.codec_context.format or "fltp", layout=layout, rate=rate)
        for at in range(0, len(samples), size):
            if gap and gap[0] <= at / rate < gap[1]:
                continue
            block = np.ascontiguousarray(samples[at : at + size].reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
            frame.rate, frame.pts = rate, at + round(start * rate)
            for one in resampler.resample(frame):
                file.mux(track.encode(one))
        file.mux(track.encode(None))
        file.close()
        return path.read_bytes()


def xing(content):
    """Where the frame with the header of an MP3 ends, and the length of the tags before it."""
    from moejax.audio.mpeg import _Walk

    walk = _Walk(io.BytesIO(content))
    at = walk.first()
    return at, at + walk._frame(at).size


def headless(content):
    at, end = xing(content)
    return content[:at] + content[end:]


LIST = b"LIST" + struct.pack("<I", 18) + b"INFOISFT\x06\0\0\0moejax"
ID3 = b"ID3\x03\0\0\0\0\0\x0aTIT2\0\0\0\0\0\0"
MP3 = sounds("MP3", rate=44100)
OGG, OGG8 = sounds("OGG"), sounds("OGG", rate=44100, channels=2, seconds=30.0)
