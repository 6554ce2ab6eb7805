"""One utterance becomes a record: its recording as FLAC at its own rate, and what the gate measures of it.

What is measured is what will be read from the record, so that `moejax describe` of a packed corpus need not listen.
"""

import dataclasses
import hashlib
import io
import json

import numpy as np
import soundfile

from moejax.audio import read, records
from moejax.audio.constants import SAMPLE_RATE
from moejax.audio.flaws import Rejected
from moejax.audio.opening import check_file
from moejax.audio.soundfiles import hushed
from moejax.data.manifest import Utterance
from moejax.errors import Refused

TEXTS = (
    *("id", "text", "language", "speaker", "translation", "translation_source", "cohort", "etiology"),
    *("severity", "accent", "gender", "prompt", "device", "split", "label", "fold"),
)
_LOSSY = ("VORBIS", "OPUS", "MPEG")
_FLAC = b"fLaC"
_DEEPEST = 8388608.0  # 24 bits, the most that FLAC holds here


@dataclasses.dataclass(frozen=True)
class Packed:
    """A record and its row of the shard's table (columns of `table.SCHEMA`)."""

    record: bytes
    row: dict

    @property
    def id(self) -> str:
        return self.row["id"]


@dataclasses.dataclass(frozen=True)
class Bad:
    """An utterance that cannot be packed, and why."""

    id: str
    reason: str
    detail: str


def packed(utterance: Utterance) -> Packed | Bad:
    """The record of an utterance, or why there is none. Long, short and silent recordings are for `describe` to judge.

    16 bits stay what they are, bit for bit, and so do 24; what has more (float, 32 bits) keeps 24, what was compressed
    with loss gets 16. A sound FLAC file is taken over as it lies.
    """
    try:
        flac, samples, rate = _recording(utterance.audio)
        checked = read.gate(samples, rate, target_rate=SAMPLE_RATE, **read.ANYTHING)
    except Rejected as rejected:
        return Bad(utterance.id, rejected.reason, rejected.detail)
    except (Refused, OSError) as error:
        return Bad(utterance.id, "unreadable", str(error))
    row = {name: getattr(utterance, name) or "" for name in TEXTS}
    said = {name: value for name, value in row.items() if value} | {"rate": rate}
    further = {name: utterance.further[name] for name in sorted(utterance.further)}
    row |= {
        **{"rate": rate, "channels": 1 if samples.ndim == 1 else samples.shape[1]},
        **{"seconds": checked.seconds, "silence": checked.silence_share, "snr": checked.snr, "loud": checked.loud},
        "fixes": ",".join(checked.fixes),
        "recording": hashlib.blake2b(checked.samples.tobytes(), digest_size=12).hexdigest(),
        "further": json.dumps(further, ensure_ascii=False) if further else "",
    }
    return Packed(records.encoded({**said, **({"further": further} if further else {})}, flac), row)


def _recording(source) -> tuple[bytes, np.ndarray, int]:
    """(FLAC file, its samples [S] or [S, channels] float32, rate)."""
    content = _content(source)
    if content is not None and content[:4] == _FLAC:
        samples, rate = read.read(source)
        return content, samples, rate
    samples, rate = read.read(source)
    samples, rate = _scaled(np.asarray(samples)), int(rate)
    subtype, full = _depth(samples, content is not None and _is_lossy(content))
    flac = io.BytesIO()
    try:
        soundfile.write(flac, samples, rate, format="FLAC", subtype=subtype)
    except (soundfile.SoundFileError, ValueError) as error:  # 9 channels; 700 kHz; no samples
        shape = f"{samples.shape} at {rate} Hz"
        raise Rejected("unreadable", f"samples of shape {shape} do not go into FLAC ({error})") from error
    heard = np.clip(np.rint(samples * full), -full, full - 1) / np.float32(full)  # what will be read from it
    return flac.getvalue(), heard.astype(np.float32), rate


def _content(source) -> bytes | None:
    """The file that the recording is; None where it is a part of one, or no file."""
    if not isinstance(source, str):
        return source.content() if hasattr(source, "content") else None
    check_file(source)
    with open(source, "rb") as file:
        return file.read()


def _scaled(samples: np.ndarray) -> np.ndarray:
    """Samples of any type that the gate knows as float32 in [-1, 1]; of what it does not know, as they are."""
    if samples.dtype.kind == "f":
        samples = samples.astype(np.float32, copy=False)
        peak = float(np.abs(samples).max(initial=0.0))
        if not np.isfinite(peak):
            raise Rejected("nan", "samples that are not finite")
        if peak > read.MAX_OVERSHOOT:
            raise Rejected("wrong_scale", f"float samples reach {peak:.6g}; full scale is 1")
        return samples
    if samples.dtype not in (np.uint8, np.int8, np.int16, np.int32):
        raise Rejected("wrong_scale", f"{samples.dtype} has no known full scale")
    return read.as_float(samples)


def _depth(samples: np.ndarray, lossy: bool) -> tuple[str, float]:
    """(FLAC subtype, its full scale): as many bits as the samples have."""
    scaled = samples * np.float32(32768.0)
    return ("PCM_16", 32768.0) if lossy or np.array_equal(scaled, np.rint(scaled)) else ("PCM_24", _DEEPEST)


def _is_lossy(content: bytes) -> bool:
    """Whether a file was compressed with loss; what libsndfile does not know (m4a, webm) was."""
    try:
        with hushed():
            return any(kind in soundfile.info(io.BytesIO(content)).subtype for kind in _LOSSY)
    except soundfile.SoundFileError:
        return True
