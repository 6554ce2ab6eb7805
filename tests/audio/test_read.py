import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import soxr

from moejax.audio import flaws, soundfiles
from moejax.audio import read as audio
from moejax.data.sources import folder

RATE = 16000


def tone(seconds=1.0, rate=RATE, level=0.3, hertz=440.0):
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def reason(*arguments, **options):
    with pytest.raises(flaws.Rejected) as raised:
        audio.gate(*arguments, **options)
    assert "\n" not in str(raised.value)
    assert raised.value.reason in flaws.REASONS
    return raised.value.reason


def test_clean_audio_passes_untouched():
    checked = audio.gate(tone(), RATE)
    assert checked.fixes == ()
    assert checked.seconds == 1.0
    assert checked.samples.dtype == np.float32
    assert np.array_equal(checked.samples, tone())


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_another_rate_is_resampled_to_the_same_sound(rate):
    checked = audio.gate(tone(rate=rate), rate)
    assert checked.fixes == ("resampled",)
    assert abs(len(checked.samples) - RATE) <= 2
    middle = slice(2000, 14000)
    assert np.abs(checked.samples[middle] - tone()[middle]).max() < 0.01


def test_stereo_is_mixed_and_opposite_phase_does_not_cancel():
    both = np.stack([tone(), 0.5 * tone()], axis=1)
    checked = audio.gate(both, RATE)
    assert checked.fixes == ("mixed",)
    np.testing.assert_allclose(checked.samples, 0.75 * tone(), atol=1e-6)
    opposite = audio.gate(np.stack([tone(), -tone()], axis=1), RATE)
    np.testing.assert_allclose(np.abs(opposite.samples), np.abs(tone()), atol=1e-6)


@pytest.mark.parametrize(("dtype", "full"), [(np.int16, 2**15), (np.int32, 2**31), (np.int8, 2**7)])
def test_integers_are_scaled_by_their_own_full_scale(dtype, full):
    checked = audio.gate((tone().astype(np.float64) * full).astype(dtype), RATE)
    assert checked.fixes == ("scaled",)
    np.testing.assert_allclose(checked.samples, tone(), atol=1.5 / full)


def test_unsigned_bytes_are_centred():
    checked = audio.gate(np.round(tone() * 128 + 128).astype(np.uint8), RATE)
    np.testing.assert_allclose(checked.samples, tone(), atol=1 / 128)


def test_no_unit_is_guessed():
    assert reason((tone() * 32768).astype(np.float32), RATE) == "wrong_scale"
    assert reason((tone() * 32768).astype(np.int64), RATE) == "wrong_scale"
    assert reason(tone() / 32768, RATE) == "silent"


def test_slight_overshoot_is_clipped_and_counted():
    checked = audio.gate(tone(level=1.2), RATE)
    assert checked.fixes == ("clipped",)
    assert np.abs(checked.samples).max() == 1.0


def test_every_other_defect_has_its_reason():
    broken = tone()
    broken[100] = np.nan
    infinite = tone()
    infinite[5] = np.inf
    assert reason(broken, RATE) == "nan"
    assert reason(infinite, RATE) == "nan"
    assert reason(np.zeros(0, np.float32), RATE) == "empty"
    assert reason(np.zeros(RATE, np.float32), RATE) == "silent"
    assert reason(np.full(RATE, 0.5, np.float32), RATE) == "silent"
    assert reason(tone(0.05), RATE) == "too_short"
    assert reason(tone(3.0), RATE, max_seconds=2.0) == "too_long"
    assert reason(np.zeros((2, RATE), np.float32), RATE) == "wrong_shape"
    assert reason(tone(), 0) == "unreadable"


def test_a_single_click_is_silence_and_a_short_word_in_a_long_pause_is_not():
    click = np.zeros(5 * RATE, np.float32)
    click[RATE] = 1.0
    assert reason(click, RATE) == "silent"
    word = np.zeros(20 * RATE, np.float32)
    word[RATE : RATE + RATE // 5] = tone(0.2)
    assert audio.gate(word, RATE).silence_share == pytest.approx(0.99, abs=0.001)


def test_silence_share_counts_time_and_does_not_depend_on_level():
    half = np.concatenate([tone(1.0), np.zeros(RATE, np.float32)])
    assert audio.silence_share(half, RATE) == pytest.approx(0.5, abs=0.02)
    assert audio.silence_share(0.01 * half, RATE) == audio.silence_share(half, RATE)
    assert audio.silence_share(tone(), RATE) == 0.0


def syllables(seconds: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """Speech-like sound and where it sounds: harmonics that swell four times a second, with pauses of a third."""
    time = np.arange(int(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 120 * k * time + rng.uniform(0, 6)) / k for k in range(1, 20))
    sounding = time % 0.9 < 0.6
    return voice * (0.7 + 0.3 * np.sin(2 * np.pi * 4 * time)) * sounding, sounding


@pytest.mark.parametrize(
    ("colour", "ratio"), [*(("white", x) for x in (0, 5, 10, 20, 30, 40)), *(("pink", x) for x in (10, 20, 30, 40))]
)
def test_signal_to_noise_is_that_of_speech_in_known_noise(colour, ratio):
    rng = np.random.default_rng(ratio)
    voice, sounding = syllables(6.0, rng)
    noise = rng.standard_normal(len(voice))
    if colour == "pink":
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 100.0), len(voice))
    noise *= np.sqrt(np.square(voice[sounding]).mean() / np.square(noise).mean() / 10 ** (ratio / 10))
    mixed = (0.05 * (voice + noise)).astype(np.float32)
    assert audio.gate(mixed, RATE).snr == pytest.approx(ratio, abs=2.5)
    assert audio.gate(mixed / 3, RATE).snr == pytest.approx(audio.gate(mixed, RATE).snr, abs=0.01)


def test_signal_to_noise_of_sounds_that_have_none_is_a_number_within_its_range():
    low, high = audio.SNR_RANGE
    assert audio.gate(tone(), RATE).snr < 0  # no frame stands out
    assert audio.gate(np.concatenate([tone(), np.zeros(RATE, np.float32)]), RATE).snr == high
    for samples in (np.zeros(RATE), np.full(RATE, 0.5), np.zeros(10)):
        assert audio.signal_to_noise(audio.frame_levels(samples, RATE)) == low
    assert np.isnan(audio.signal_to_noise(np.zeros(0)))


def read_reason(source):
    with pytest.raises(flaws.Rejected) as raised:
        audio.read(source)
    return raised.value.reason


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_reading_wav_files_and_bytes(tmp_path, subtype):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype=subtype)
    for source in (tmp_path / "a.wav", str(tmp_path / "a.wav"), (tmp_path / "a.wav").read_bytes()):
        samples, rate = audio.read(source)
        assert rate == RATE
        np.testing.assert_allclose(samples, tone(), atol=1e-4)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_truncated_file_is_refused_though_the_library_may_read_it(tmp_path, name):
    soundfile.write(tmp_path / name, tone(), RATE)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
    assert read_reason(tmp_path / name) == "truncated"
    assert read_reason((tmp_path / name).read_bytes()) == "truncated"


@pytest.mark.parametrize("layout", ["WAVEX", "RF64"])
def test_other_wav_headers_are_understood(tmp_path, layout):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, format=layout, subtype="PCM_16")
    assert len(audio.read(tmp_path / "a.wav")[0]) == RATE
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:-2000])
    assert read_reason(tmp_path / "a.wav") == "truncated"


def test_a_wav_from_a_pipe_promises_no_length_and_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype="PCM_16")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    at = content.index(b"data")
    content[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    assert len(audio.read(tmp_path / "a.wav")[0]) == RATE


def test_what_is_no_audio_is_unreadable(tmp_path):
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not audio at all")
    (tmp_path / "head.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVE")
    for name in ("empty.wav", "text.wav", "head.wav", "missing.wav"):
        assert read_reason(tmp_path / name) == "unreadable"
    assert read_reason(tmp_path) == "unreadable"


def test_chunks_cover_everything_once_and_cut_where_it_is_quiet():
    pieces = []
    for _ in range(6):
        pieces += [tone(1.5), np.zeros(RATE // 2, np.float32)]
    samples = np.concatenate(pieces)
    spans = audio.chunks(samples, 5.0)
    assert spans[0][0] == 0 and spans[-1][1] == len(samples)
    assert all(left[1] == right[0] for left, right in zip(spans, spans[1:], strict=False))
    assert all(0 < stop - start <= 5 * RATE for start, stop in spans)
    assert len(spans) >= 3
    for _, stop in spans[:-1]:
        assert np.abs(samples[stop - 160 : stop + 160]).max() == 0.0


def test_chunks_of_sound_without_pauses_and_of_short_sound():
    noise = np.random.default_rng(0).normal(0, 0.1, 7 * RATE).astype(np.float32)
    spans = audio.chunks(noise, 2.0)
    assert all(RATE * 0.9 <= stop - start <= 2 * RATE for start, stop in spans[:-1])
    assert audio.chunks(noise, 30.0) == [(0, len(noise))]
    with pytest.raises(ValueError, match="max_seconds"):
        audio.chunks(noise, 0.0)


def stereo(seconds, rate=44100):
    noise = np.random.default_rng(1).normal(0, 0.05, round(seconds * rate)).astype(np.float32)
    return np.stack([tone(seconds, rate), 0.5 * tone(seconds, rate) + noise], axis=1)


WHOLE = {"min_seconds": 0.0, "max_seconds": float("inf")}


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_a_recording_in_blocks_is_the_recording_in_one_go(tmp_path, name):
    soundfile.write(tmp_path / name, stereo(7.3), 44100)
    loaded = audio.load(tmp_path / name, **WHOLE)
    samples, rate = audio.read(tmp_path / name)
    wanted = np.clip(soxr.resample(np.clip(samples.mean(axis=1), -1, 1), rate, RATE), -1, 1)
    assert len(samples) > soundfiles.BLOCK_FRAMES  # several blocks
    assert loaded.samples.shape == wanted.shape and np.abs(loaded.samples - wanted).max() < 1e-6
    assert loaded.fixes == ("mixed", "resampled") and loaded.seconds == len(samples) / rate
    for source in ((tmp_path / name).read_bytes(), io.BytesIO((tmp_path / name).read_bytes())):
        assert np.array_equal(audio.load(source, **WHOLE).samples, loaded.samples)
    assert np.array_equal(audio.gate(samples, rate, **WHOLE).samples, loaded.samples)


def test_levels_do_not_depend_on_blocks():
    samples = stereo(9.7)[:, 1]
    size = round(44100 * audio.FRAME_SECONDS)
    frames = [samples[at : at + size].std() for at in range(0, len(samples), size)]
    np.testing.assert_allclose(audio.frame_levels(samples, 44100), 20 * np.log10(frames), atol=1e-4)


def test_channels_that_cancel_are_heard_one_alone_however_long_the_file(tmp_path):
    left = stereo(7.0)[:, 1]
    soundfile.write(tmp_path / "a.wav", np.stack([0.9 * left, -left], axis=1), 44100, subtype="FLOAT")
    heard = audio.load(tmp_path / "a.wav", **WHOLE)
    assert heard.fixes == ("mixed", "resampled")
    assert np.abs(heard.samples - audio.gate(-left, 44100, **WHOLE).samples).max() < 1e-6


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda x: np.where(np.arange(len(x))[:, None] == len(x) - 3, np.nan, x), "nan"),
        (lambda x: np.where(np.arange(len(x))[:, None] > len(x) - 9, 7.0, x), "wrong_scale"),
        (lambda x: 0 * x, "silent"),
        (lambda x: x[:50], "too_short"),
        (lambda x: x[:0], "empty"),
    ],
)
def test_a_defect_in_the_last_block_has_its_reason(tmp_path, change, wanted):
    soundfile.write(tmp_path / "a.wav", change(stereo(7.0)), 44100, subtype="FLOAT")
    with pytest.raises(flaws.Rejected) as raised:
        audio.load(tmp_path / "a.wav", max_seconds=10.0)
    assert raised.value.reason == wanted


def test_reading_stops_where_a_recording_is_too_long(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", stereo(20.0), 44100)
    read, real = [], soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda file, n, **k: read.append(n) or real(file, n, **k))
    with pytest.raises(flaws.Rejected, match="too_long"):
        audio.load(tmp_path / "a.wav", max_seconds=2.0)
    assert sum(read) == soundfiles.BLOCK_FRAMES  # the first block of seven


PEAK = """
import sys
import numpy
from moejax.audio import flaws, opening
from moejax.audio import read as audio
def most():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
audio.load(sys.argv[1], max_seconds=1e9)
before = most()
print(audio.load(sys.argv[2], max_seconds=1e9).samples.nbytes, most() - before)
"""


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_memory_holds_the_samples_at_16_khz_and_little_else(tmp_path, name):
    """Five minutes of stereo at 44.1 kHz are 106 MB, in one channel at 16 kHz 19 MB."""
    short, block = tmp_path / f"short_{name}", stereo(10.0)
    soundfile.write(short, block, 44100)
    with soundfile.SoundFile(tmp_path / name, "w", 44100, 2) as file:
        for _ in range(30):
            file.write(block)
    command = [sys.executable, "-c", PEAK, str(short), str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size, grown = map(int, done.stdout.split())
    assert abs(size - 4 * 300 * RATE) < 4 * RATE
    assert grown < size + 12_000_000, f"{grown / 1e6:.1f} MB for {size / 1e6:.1f} MB of samples"


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    for source in (tmp_path / "pipe.wav", tmp_path, tmp_path / "loop.wav", "/dev/zero", "a\0b.wav"):
        with pytest.raises(flaws.Rejected, match="unreadable") as raised:
            audio.load(source)
        assert "\n" not in str(raised.value)


def test_a_file_of_zeros_behind_riff_takes_no_time(tmp_path):
    path = tmp_path / "zeros.wav"
    path.write_bytes(b"RIFF\0\0\0\0WAVE")
    os.truncate(path, 2**32)  # a chunk of no bytes every eight bytes
    assert read_reason(path) == "unreadable"


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_rates_that_no_recorder_has_are_refused(rate):
    assert reason(tone(), rate) == "unreadable"


def test_floats_beyond_any_unit_are_of_no_scale():
    for value in (3e38, -3e38, 1e20):
        samples = np.stack([tone(), tone()], axis=1)
        samples[50] = value  # its square, and the sum of two, are too large for a float
        assert reason(samples, RATE) == "wrong_scale"
        assert reason(samples[:, 0], RATE) == "wrong_scale"


def test_a_header_that_promises_more_than_memory(tmp_path):
    """FLAC holds the number of samples in 36 bits."""
    soundfile.write(tmp_path / "a.flac", tone(), RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    (tmp_path / "a.flac").write_bytes(content)
    assert read_reason(tmp_path / "a.flac") == "truncated"
    with pytest.raises(flaws.Rejected, match="truncated"):
        folder.Segment(str(tmp_path / "a.flac"), 0.0, None)()
