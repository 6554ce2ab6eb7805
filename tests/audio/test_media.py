"""m4a, webm and their kin: read by their content, refused in one line."""

import sys

import av
import numpy as np
import pytest

from moejax.audio import flaws, media, read

RATE = 48000
KINDS = {"m4a": ("ipod", "aac"), "webm": ("webm", "libopus"), "mkv": ("matroska", "flac"), "aac": ("adts", "aac")}


def write(path, seconds=1.5, channels=2):
    """A tone, louder on the left."""
    container, codec = KINDS[path.suffix[1:]]
    time = np.arange(round(seconds * RATE)) / RATE
    tone = 0.4 * np.sin(2 * np.pi * 440 * time)
    samples = np.stack([tone, 0.5 * tone][:channels], axis=1)
    with av.open(str(path), "w", format=container) as file:
        layout = "stereo" if channels == 2 else "mono"
        format = {"flac": "s16", "libopus": "flt"}.get(codec, "fltp")
        track = file.add_stream(codec, rate=RATE, layout=layout, format=format)
        for at in range(0, len(samples), 960):
            block = np.ascontiguousarray(samples[at : at + 960].astype(np.float32).reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
            frame.rate, frame.pts = RATE, at
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return path


@pytest.mark.parametrize("suffix", KINDS)
def test_a_tone_comes_back_whatever_the_container(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}")
    samples, rate = read.read(path)
    assert rate == RATE and samples.shape[1] == 2 and samples.dtype == np.float32
    assert abs(len(samples) / rate - 1.5) < 0.1
    middle = samples[RATE // 2 : RATE]
    spectrum = np.abs(np.fft.rfft(middle[:, 0]))
    assert abs(int(spectrum.argmax()) * RATE / len(middle) - 440) <= 2
    assert abs(middle[:, 0].std() - 0.4 / np.sqrt(2)) < 0.02
    assert abs(middle[:, 1].std() / middle[:, 0].std() - 0.5) < 0.05
    assert np.array_equal(read.read(path.read_bytes())[0], samples)
    checked = read.gate(samples, rate)
    assert checked.fixes == ("mixed", "resampled")
    assert np.array_equal(read.load(path).samples, checked.samples)


def test_a_file_is_known_by_its_content_not_by_its_name(tmp_path):
    path = write(tmp_path / "a.m4a", channels=1)
    renamed = path.rename(tmp_path / "a.wav")
    assert read.read(renamed)[0].shape[1] == 1


@pytest.mark.parametrize("head", [b"RIFF1234WAVE", b"fLaC", b"OggS", b"ID3\x03", b"\xff\xfb\x90\x00", b"", b"\xff"])
def test_what_libsndfile_reads_is_left_to_it(head):
    assert media.kind(head) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0\0\0\x20ftypM4A " + b"\0" * 400, "unreadable"),
        (b"\x1aE\xdf\xa3" + b"\7" * 400, "unreadable"),
        (b"\xff\xf1" + b"\0" * 400, "unreadable"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(tmp_path, content, reason):
    (tmp_path / "x.m4a").write_bytes(content)
    with pytest.raises(flaws.Rejected, match="x.m4a: ") as raised:
        read.read(tmp_path / "x.m4a")
    assert raised.value.reason == reason and "\n" not in str(raised.value)


def test_half_a_file_is_truncated(tmp_path):
    content = write(tmp_path / "a.mkv", seconds=8).read_bytes()
    (tmp_path / "half.mkv").write_bytes(content[: len(content) // 2])
    with pytest.raises(flaws.Rejected, match="half.mkv.*promises 8.0 s") as raised:
        read.read(tmp_path / "half.mkv")
    assert raised.value.reason == "truncated"


def test_without_the_extra_its_name_is_said(tmp_path, monkeypatch):
    path = write(tmp_path / "a.m4a")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(flaws.Rejected, match=r"a.m4a: MP4 audio is read by PyAV.*pip install 'moejax\[media\]'"):
        read.read(path)
