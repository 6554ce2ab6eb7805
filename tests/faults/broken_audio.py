"""Recordings that are broken in every way we know of, each a pure function of (seed, number)."""

import dataclasses
import functools
import io
import os
import random
import socket
import struct
from pathlib import Path

import numpy as np
import soundfile

RATES = (4000, 6000, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
WAV = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM")
# name: (libsndfile's format, subtypes, rates, most channels)
FORMATS = {
    "wav": ("WAV", WAV, RATES, 8),
    "flac": ("FLAC", ("PCM_16", "PCM_24"), RATES, 8),
    "mp3": ("MP3", ("MPEG_LAYER_III",), MP3_RATES, 2),
    "ogg": ("OGG", ("VORBIS",), RATES, 8),
    "opus": ("OGG", ("OPUS",), OPUS_RATES, 8),
    "aiff": ("AIFF", ("PCM_16", "FLOAT"), RATES, 8),
}
MAGIC = (
    b"RIFF\xff\xff\xff\x7fWAVEfmt ",
    b"RF64\xff\xff\xff\xffWAVEds64",
    b"fLaC\x00\x00\x00\x22",
    b"OggS\x00\x02",
    b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f",
    b"\xff\xfb\x90\x64",
    b"FORM\x00\x00\x01\x00AIFF",
    b"\x00\x00\x00\x20ftypM4A ",
    b"\x1aE\xdf\xa3",
    b"\x30\x26\xb2\x75",
    b"#!AMR\n",
    b"\xff\xf1\x50\x80",
    b"caff\x00\x01",
    b".snd",
    b"riff",
    b"PK\x03\x04",
    b"\x7fELF\x02\x01",
    b"%PDF-1.7\n",
    b"\xff\xd8\xff\xe0",
    b"<html>",
)
EXTREMES = (0, 1, 2, 7, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
HOURS = 10


@dataclasses.dataclass(frozen=True)
class Case:
    """One recording: what is wrong with it, and the number that all its draws come from."""

    kind: str
    number: int
    seed: int


def cases(count: int, seed: int, kinds=None) -> list[Case]:
    """So many recordings, the kinds in turn (those with content more often)."""
    kinds = tuple(kinds or KINDS)
    often = [kind for kind in kinds if kind in ("cut", "flipped", "header", "lying", "overwritten", "garbage")]
    order = list(kinds) + often * 2
    return [Case(order[number % len(order)], number, seed) for number in range(count)]


def with_media() -> bool:
    """Whether PyAV is there: m4a files join in."""
    try:
        import av  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def make(case: Case, folder: Path) -> Path:
    """Writes the recording and gives its path (which need not exist: that, too, is a case)."""
    draw = random.Random(f"{case.seed} {case.number} {case.kind}")
    made = KINDS[case.kind](draw, folder / f"{case.kind}-{case.number:05d}")
    return made


def sound(seconds: float, rate: int, channels: int) -> np.ndarray:
    """[S, channels] of tones with pauses and a little noise, float64 within 0.5."""
    rng = np.random.default_rng(7)
    time = np.arange(max(1, round(seconds * rate))) / rate
    wave = 0.3 * np.sin(2 * np.pi * np.where(time % 0.4 < 0.2, 310.0, 740.0) * time) * (time % 0.2 < 0.15)
    wave = wave + 0.002 * rng.standard_normal(len(wave))
    return np.stack([wave * 0.9**channel for channel in range(channels)], axis=1)


@functools.lru_cache(maxsize=512)
def encoded(name: str, subtype: str, rate: int, channels: int, seconds: float = 0.8) -> bytes:
    """The bytes of a whole recording."""
    if name == "m4a":
        return _m4a(rate, channels, seconds)
    stream = io.BytesIO()
    soundfile.write(stream, sound(seconds, rate, channels), rate, format=FORMATS[name][0], subtype=subtype)
    return stream.getvalue()


def _m4a(rate, channels, seconds) -> bytes:
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="ipod") as file:
        layout = {1: "mono", 2: "stereo"}[channels]
        track = file.add_stream("aac", rate=rate, layout=layout)
        wave = np.ascontiguousarray(sound(seconds, rate, channels).T.astype(np.float32))
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
        frame.rate = rate
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return stream.getvalue()


def _any_whole(draw, name=None):
    """(suffix, bytes) of a whole recording of any format, rate and number of channels."""
    name = name or draw.choice([*FORMATS, "wav", "flac", "mp3", "ogg", *(["m4a"] if with_media() else [])])
    if name == "m4a":
        return name, encoded(name, "", draw.choice((16000, 44100)), draw.choice((1, 2)))
    _, subtypes, rates, most = FORMATS[name]
    subtype, rate, channels = draw.choice(subtypes), draw.choice(rates), draw.randint(1, most)
    if "ADPCM" in subtype:
        channels = min(channels, 2)
    if name == "ogg" and (rate < 8000 or rate > 48000):  # libvorbis refuses to encode these with many channels
        rate, channels = 44100, min(channels, 2)
    return name, encoded(name, subtype, rate, channels)


def _write(path: Path, suffix: str, content: bytes) -> Path:
    path = path.with_name(f"{path.name}.{suffix}")
    path.write_bytes(content)
    return path


def whole(draw, path):
    """Nothing is wrong with it: must be used."""
    return _write(path, *_any_whole(draw))


def cut(draw, path):
    suffix, content = _any_whole(draw)
    return _write(path, suffix, content[: draw.randrange(len(content))])


def flipped(draw, path):
    suffix, content = _any_whole(draw)
    return _write(path, suffix, _flip(draw, content, len(content)))


def header(draw, path):
    suffix, content = _any_whole(draw)
    return _write(path, suffix, _flip(draw, content, min(len(content), draw.choice((48, 128, 512)))))


def _flip(draw, content, within) -> bytes:
    content = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        content[draw.randrange(within)] ^= 1 << draw.randrange(8)
    return bytes(content)


def lying(draw, path):
    """A number in the header says something else: rate, channels, sizes, counts."""
    suffix, content = _any_whole(draw, draw.choice(("wav", "wav", "flac", "ogg", "opus", "aiff", "mp3")))
    content, value = bytearray(content), draw.choice(EXTREMES)
    if suffix == "wav":  # riff size, fmt size, tag, channels, rate, bytes a second, block, bits, size of the data
        at = content.find(b"data") + 4
        place, size = draw.choice(((4, 4), (16, 4), (20, 2), (22, 2), (24, 4), (28, 4), (32, 2), (34, 2), (at, 4)))
        content[place : place + size] = struct.pack("<I", value % 2**32)[:size]
    elif suffix == "flac":  # STREAMINFO: block sizes, frame sizes, rate and channels and bits, samples, MD5
        place, size = draw.choice(((8, 2), (10, 2), (12, 3), (15, 3), (18, 3), (20, 2), (21, 5), (26, 16)))
        content[place : place + size] = (value << draw.randrange(8)).to_bytes(16, "big")[-size:].rjust(size, b"\xff")
    elif suffix in ("ogg", "opus"):  # granule position, page number or the first packet's rate and channels
        page = draw.choice([at for at in range(len(content) - 27) if content[at : at + 4] == b"OggS"])
        place, size = draw.choice(((page + 6, 8), (page + 18, 4), (page + 26, 1), (page + 27, 1), (39, 1), (40, 4)))
        content[place : place + size] = struct.pack("<Q", value)[:size]
    else:
        place = draw.randrange(min(len(content), 64))
        content[place : place + 4] = struct.pack(">I", value % 2**32)
    return _write(path, suffix, bytes(content))


def overwritten(draw, path):
    """A block in the middle is zeros, noise, or another part of the file."""
    suffix, content = _any_whole(draw)
    content, size = bytearray(content), draw.choice((16, 512, 4096))
    at = draw.randrange(len(content))
    size = min(size, len(content) - at)
    other = draw.randrange(len(content) - size + 1)
    content[at : at + size] = draw.choice((bytes(size), draw.randbytes(size), bytes(content[other : other + size])))
    return _write(path, suffix, bytes(content))


def spliced(draw, path):
    """Two recordings of different formats one behind the other, or one without its beginning."""
    (suffix, one), (_, other) = _any_whole(draw), _any_whole(draw)
    return _write(path, suffix, draw.choice((one + other, one[len(one) // 3 :], one[:64] + other)))


def misnamed(draw, path):
    _, content = _any_whole(draw)
    return _write(path, draw.choice(("wav", "mp3", "flac", "m4a", "txt")), content)


def empty(draw, path):
    """No byte at all, or a header without samples, or one sample."""
    suffix = draw.choice(("wav", "flac", "ogg", "aiff"))
    stream = io.BytesIO()
    count = draw.choice((0, 1, 2, 100))
    soundfile.write(stream, np.zeros(count) + 0.1, draw.choice((8000, 16000, 44100)), format=FORMATS[suffix][0])
    return _write(path, suffix, draw.choice((b"", stream.getvalue(), stream.getvalue())))


def level(draw, path):
    """Silence, a constant, full scale all the time, one click, or far too soft."""
    rate, count = draw.choice(RATES), 9600
    wave = draw.choice(
        (
            np.zeros(count),
            np.full(count, draw.choice((0.5, -1.0))),
            np.eye(1, count, 50)[0],
            1e-5 * sound(0.6, 16000, 1)[:, 0],
            np.clip(100 * sound(0.6, 16000, 1)[:, 0], -1, 1),
            np.where(np.arange(count) % 40 < 20, 1.0, -1.0),
        )
    )
    suffix = draw.choice(("wav", "flac"))
    stream = io.BytesIO()
    soundfile.write(stream, np.stack([wave] * draw.randint(1, 8), axis=1), rate, format=FORMATS[suffix][0])
    return _write(path, suffix, stream.getvalue())


def numbers(draw, path):
    """Floats that are not finite, or of no known scale."""
    subtype = draw.choice(("FLOAT", "DOUBLE"))
    wave = sound(0.6, 16000, draw.choice((1, 2, 8)))
    values = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e300, 32768.0, 5.0, 1e-320)
    value, count = draw.choice(values), draw.choice((1, 10, len(wave)))
    with np.errstate(over="ignore"):
        wave[draw.sample(range(len(wave)), count)] = value if subtype == "DOUBLE" else np.float32(value)
    if draw.random() < 0.3:  # everything in other units
        wave = wave * draw.choice((32768.0, 1e30, 1e-30))
    stream = io.BytesIO()
    with np.errstate(over="ignore"):
        soundfile.write(stream, wave, draw.choice((8000, 16000, 48000)), format="WAV", subtype=subtype)
    return _write(path, "wav", stream.getvalue())


def hours(draw, path):
    """Ten hours: a sparse file that holds them, or a header that says so."""
    how = draw.choice(("sparse", "sparse", "wav", "flac", "zeros"))
    rate, channels = draw.choice(((16000, 1), (48000, 2), (8000, 1)))
    samples = HOURS * 3600 * rate
    if how == "flac":
        content = bytearray(encoded("flac", "PCM_16", rate, channels))
        content[22:26] = struct.pack(">I", samples % 2**32)  # the lower 32 of 36 bits
        return _write(path, "flac", bytes(content))
    path = path.with_name(f"{path.name}.wav")
    if how == "zeros":  # RIFF and WAVE, and gigabytes of zeros where chunks should be
        path.write_bytes(b"RIFF\x00\x00\x00\x00WAVE")
        os.truncate(path, 2**31)
        return path
    size = samples * 2 * channels
    head = b"RIFF" + struct.pack("<I", (size + 36) % 2**32) + b"WAVEfmt " + struct.pack("<I", 16)
    head += struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels, 2 * channels, 16)
    path.write_bytes(head + b"data" + struct.pack("<I", min(size, 2**32 - 2)))
    if how == "sparse":
        os.truncate(path, 44 + min(size, 2**32 - 2))
    return path


def garbage(draw, path):
    """No audio: random bytes, often behind the first bytes of something."""
    content = draw.choice((*MAGIC, b"", b"")) + draw.randbytes(draw.choice((0, 3, 100, 5000, 60000)))
    if draw.random() < 0.1:
        content = ("file,text\na.wav,hello\n" * 50).encode()
    return _write(path, draw.choice((*FORMATS, "m4a", "webm")), content)


def no_file(draw, path):
    """A path that is no file: folder, pipe, socket, device, link to itself or to nothing, nothing, a name with NUL."""
    path, what = path.with_name(f"{path.name}.wav"), draw.randrange(9)
    if what == 0:
        path.mkdir(exist_ok=True)
    elif what in (1, 2):
        os.mkfifo(path)
    elif what == 3:
        path.symlink_to(path)
    elif what == 4:
        path.symlink_to(path.with_name("not-there.wav"))
    elif what == 5:
        path.symlink_to(draw.choice(("/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem")))
    elif what == 6:
        here = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as made:  # by a short name: socket paths end at 108 bytes
            made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
    elif what == 7:
        return path.with_name("a\0b.wav")
    return path


KINDS = {
    function.__name__: function
    for function in (
        whole,
        cut,
        flipped,
        header,
        lying,
        overwritten,
        spliced,
        misnamed,
        empty,
        level,
        numbers,
        hours,
        garbage,
        no_file,
    )
}
