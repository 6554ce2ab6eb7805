"""What FFmpeg reads, we read, with the same duration: formats, codecs, and headers as they are met in the wild."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from wild_files import ID3, LIST, MP3, OGG, OGG8, RATE, encoded, headless, sounds, voice, wav, xing

from moejax.audio import flaws, read, soundfiles

WHOLE = {"min_seconds": 0.0, "max_seconds": float("inf")}

WITHOUT_AV = {  # name: (bytes, seconds, of what the flaw speaks or None)
    **{f"wav {s}": (lambda s=s: sounds("WAV", s), 3.0, None) for s in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32")},
    **{f"wav {s}": (lambda s=s: sounds("WAV", s), 3.0, None) for s in ("FLOAT", "DOUBLE", "ULAW", "ALAW")},
    **{f"wav {s}": (lambda s=s: sounds("WAV", s), 3.0, None) for s in ("IMA_ADPCM", "MS_ADPCM", "GSM610")},
    "rifx": (lambda: sounds("WAV", "PCM_16", "BIG"), 3.0, None),
    "rf64": (lambda: sounds("RF64", "PCM_16"), 3.0, None),
    "w64": (lambda: sounds("W64", "PCM_16"), 3.0, None),
    "wavex 5.1": (lambda: sounds("WAVEX", "PCM_24", channels=6), 3.0, None),
    "wav 8 kHz": (lambda: sounds("WAV", "PCM_16", rate=8000), 3.0, None),
    "wav 96 kHz": (lambda: sounds("WAV", "PCM_24", rate=96000, channels=2), 3.0, None),
    "aiff": (lambda: sounds("AIFF", "PCM_16"), 3.0, None),
    "aiff 24": (lambda: sounds("AIFF", "PCM_24", channels=2), 3.0, None),
    "aiff float": (lambda: sounds("AIFF", "FLOAT"), 3.0, None),
    "au": (lambda: sounds("AU", "PCM_16"), 3.0, None),
    "au mu-law 8 kHz": (lambda: sounds("AU", "ULAW", rate=8000), 3.0, None),
    "caf": (lambda: sounds("CAF", "PCM_16"), 3.0, None),
    "flac": (lambda: sounds("FLAC", "PCM_16"), 3.0, None),
    "flac 24 bit 96 kHz": (lambda: sounds("FLAC", "PCM_24", rate=96000, channels=2), 3.0, None),
    "ogg vorbis": (lambda: OGG, 3.0, None),
    "ogg opus": (lambda: sounds("OGG", "OPUS", rate=48000), 3.0, None),
    "mp3": (lambda: MP3, 3.0, None),
    "mp3 16 kHz": (lambda: sounds("MP3"), 3.0, None),
    "wav length 0": (lambda: wav(0), 3.0, None),
    "wav length 0x7FFFF000": (lambda: wav(0x7FFFF000), 3.0, None),
    "wav length 0x80000000": (lambda: wav(0x80000000, 0x80000024), 3.0, None),
    "wav length 0x7FFFFFDB": (lambda: wav(0x7FFFFFDB, 0x7FFFFFFF), 3.0, None),
    "wav length 0xFFFFFFDB": (lambda: wav(0xFFFFFFDB, 0xFFFFFFFF), 3.0, None),
    "wav length 0xFFFFFFFF": (lambda: wav(0xFFFFFFFF, 0xFFFFFFFF, before=LIST), 3.0, None),
    "wav plus 44": (lambda: wav(96044), 3.0, None),
    "wav a few bytes short": (lambda: wav(cut=7), 3.0, None),
    "wav half declared": (lambda: wav(48000), 3.0, "declares 1.50 s, 1.50 s more follow"),
    "wav with a list behind": (lambda: wav(behind=LIST), 3.0, None),
    "wav with an unknown chunk": (lambda: wav(behind=b"abcd\x04\0\0\0\1\2\3\4"), 3.0, None),
    "wav with a chunk that lies": (lambda: wav(behind=b"LIST\xff\xff\0\0INFO" + bytes(1000)), 3.0, None),
    "wav padded to blocks": (lambda: wav(behind=bytes(4096)), 3.0, None),
    "mp3 with tags": (lambda: ID3 + MP3 + b"TAG" + bytes(125), 3.0, None),
    "mp3 joined": (lambda: MP3 + MP3, 6.0, None),
    "mp3 joined with tags": (lambda: ID3 + MP3 + ID3 + MP3, 6.0, None),
    "mp3 joined, other rate": (lambda: MP3 + sounds("MP3", rate=16000), 6.0, None),
    "mp3 joined, channels": (lambda: sounds("MP3", rate=44100, channels=2) + MP3, 6.0, None),
    "mp3 behind junk": (lambda: b"junk" * 1000 + MP3, 3.0, None),
    "mp3 behind zeros": (lambda: bytes(5000) + MP3, 3.0, None),
    "mp3 without a header": (lambda: headless(MP3), 3.0, None),
    "mp3 with junk within": (lambda: MP3[:8000] + b"\0junk" * 20 + MP3[8000:], 3.0, None),
    "mp3 named by its content": (lambda: sounds("MP3", rate=48000, channels=2), 3.0, None),
    "ogg joined": (lambda: OGG + OGG, 6.0, None),
    "ogg joined, other rate": (lambda: OGG + sounds("OGG", rate=44100, channels=2), 6.0, None),
    "wav half there": (lambda: wav()[: 44 + 48000], 1.5, "truncated: the header promises 3.00 s, 1.50 s"),
    **{
        f"{format} half there": (lambda format=format: halved(sounds(format, "PCM_16")), 1.5, "truncated: the header")
        for format in ("AIFF", "AU", "CAF", "W64", "RF64")
    },
    "flac half there": (lambda: halved(sounds("FLAC")), None, "truncated: the header promises 3.00 s"),
    "ogg half there": (lambda: halved(OGG8), None, "truncated: it ends before its last page"),
    "mp3 half there": (lambda: MP3[: len(MP3) // 2], None, "truncated: the header promises 3.0"),
    "mp3 without a header, cut": (lambda: headless(MP3)[:-100], 3.0, "truncated: it ends within a frame"),
}
WITH_AV = {
    "m4a aac": (lambda: encoded("ipod", "aac"), 3.0, None),
    "mp4 aac 5.1": (lambda: encoded("mp4", "aac", 48000, 6), 3.0, None),
    "m4a alac": (lambda: encoded("ipod", "alac", 44100, 2), 3.0, None),
    "mov pcm": (lambda: encoded("mov", "pcm_s16be", 44100, 2), 3.0, None),
    "mp4, longer picture": (lambda: encoded("mp4", "aac", 44100, picture=9.0), 3.0, None),
    "mp4, sound from 4 s on": (lambda: encoded("mp4", "aac", 44100, start=4.0, picture=9.0), 7.0, None),
    "mkv, sound from 4 s on": (lambda: encoded("matroska", "aac", 44100, start=4.0, picture=9.0), 7.0, None),
    "mkv with a gap": (lambda: encoded("matroska", "libopus", 48000, gap=(1.0, 2.0)), 3.0, None),
    "mp4 with a gap": (lambda: encoded("mp4", "aac", 48000, gap=(1.0, 2.0)), 3.0, None),
    "mkv flac": (lambda: encoded("matroska", "flac", 44100, 2), 3.0, None),
    "mkv, longer picture": (lambda: encoded("matroska", "aac", 44100, picture=9.0), 3.0, None),
    "webm opus": (lambda: encoded("webm", "libopus", 48000), 3.0, None),
    "avi mp3": (lambda: encoded("avi", "libmp3lame", 44100, picture=3.0), 3.0, None),
    "avi pcm": (lambda: encoded("avi", "pcm_s16le", 16000), 3.0, None),
    "flv aac": (lambda: encoded("flv", "aac", 44100, picture=3.0, moving="flv"), 3.0, None),
    "ts aac": (lambda: encoded("mpegts", "aac", 44100), 3.0, None),
    "ts, sound from 2 s on": (lambda: encoded("mpegts", "mp2", 48000, start=2.0, picture=6.0), 5.0, None),
    "mpeg mp2": (lambda: encoded("mpeg", "mp2", 48000, picture=3.0), 3.0, None),
    "mp2": (lambda: encoded("mp2", "mp2", 48000), 3.0, None),
    "adts aac": (lambda: encoded("adts", "aac", 44100), 3.0, None),
    "wma": (lambda: encoded("asf", "wmav2", 44100), 3.0, None),
    "ac3": (lambda: encoded("ac3", "ac3", 48000, 2), 3.0, None),
    "eac3": (lambda: encoded("eac3", "eac3", 48000, 6), 3.0, None),
    "wavpack": (lambda: encoded("wv", "wavpack", 44100), 3.0, None),
    "tta": (lambda: encoded("tta", "tta", 44100), 3.0, None),
    "nut": (lambda: encoded("nut", "pcm_s16le", 16000), 3.0, None),
    "wav with mp3 inside": (lambda: encoded("wav", "libmp3lame", 44100), 3.0, None),
    "wav with adpcm": (lambda: encoded("wav", "adpcm_ima_wav", 44100), 3.0, None),
    "caf alac": (lambda: encoded("caf", "alac", 44100), 3.0, None),
    "au a-law": (lambda: encoded("au", "pcm_alaw", 8000), 3.0, None),
    "ogg flac": (lambda: encoded("ogg", "flac", 44100), 3.0, None),
    "m4a half there": (
        lambda: halved(encoded("ipod", "aac", 44100, seconds=8.0, options={"movflags": "faststart"})),
        None,
        "truncated: MP4 file: its header promises 8.0 s",
    ),
    "mkv half there": (lambda: halved(encoded("matroska", "aac", 44100)), 1.5, "its header promises 3.0 s"),
    "avi half there": (lambda: halved(encoded("avi", "pcm_s16le", 16000)), 1.5, "its header promises 3.0 s"),
    "flv half there": (
        lambda: halved(encoded("flv", "aac", 44100, picture=3.0, moving="flv")),
        None,
        "its header promises 3.0 s",
    ),
    "tta half there": (lambda: halved(encoded("tta", "tta", 44100)), None, "its header promises 3.0 s"),
    "mp4 cut before its index": (lambda: halved(encoded("mp4", "aac", 44100)), None, "refused"),
}


def halved(content):
    return content[: len(content) // 2]


ROWS = WITHOUT_AV | WITH_AV
DELAY = 0.1  # seconds that an encoder may add or take


def by_ffmpeg(content):
    """Seconds that FFmpeg hears, with the silence before it."""
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(content)) as file:
        frames = list(file.decode(audio=0))
    return sum(frame.samples / frame.sample_rate for frame in frames)


@pytest.mark.parametrize("name", ROWS)
def test_every_format_is_read_to_its_end(name):
    make, seconds, flaw = ROWS[name]
    if name in WITH_AV:
        pytest.importorskip("av")
    content = make()
    if flaw == "refused":
        with pytest.raises(flaws.Rejected, match="unreadable"):
            read.load(content, whole=False, **WHOLE)
        return
    heard = read.load(content, whole=False, **WHOLE)
    if seconds is None:
        assert 0.5 < heard.seconds < 20.0
    else:
        assert abs(heard.seconds - seconds) < DELAY
    assert abs(len(heard.samples) / RATE - heard.seconds) < 0.01
    assert np.abs(heard.samples).max() > 0.1
    if flaw is None:
        assert heard.flaws == ()
        assert np.array_equal(read.load(content, **WHOLE).samples, heard.samples)
    else:
        assert len(heard.flaws) == 1 and flaw in heard.flaws[0]
        with pytest.raises(flaws.Rejected) as raised:
            read.load(content, **WHOLE)
        assert raised.value.reason in ("truncated", "wrong_length")


# FFmpeg leaves out what is behind the declared end, reads only the first link of a chain, hears the headers of joined
# files as sound, and puts no silence into gaps
OTHERWISE = ("half declared", "joined", "gap", "from", "there", "cut", "GSM", "junk", "zeros", "length 0", "header")


@pytest.mark.parametrize("name", [name for name in ROWS if not any(word in name for word in OTHERWISE)])
def test_durations_are_ffmpegs(name):
    content = ROWS[name][0]()
    assert abs(read.load(content, **WHOLE).seconds - by_ffmpeg(content)) < DELAY


@pytest.mark.parametrize("name", ["mp4, sound from 4 s on", "mkv, sound from 4 s on", "ts, sound from 2 s on"])
def test_a_late_start_is_silence_on_the_clock_of_the_file(name):
    heard = read.load(ROWS[name][0](), **WHOLE)
    start = 4.0 if "4 s" in name else 2.0
    loud = np.flatnonzero(np.abs(heard.samples) > 0.05)[0] / RATE
    assert abs(loud - start) < 0.1
    assert not heard.samples[: round((start - 0.1) * RATE)].any()


def test_a_gap_is_silence_and_what_follows_is_where_it_was():
    heard = read.load(ROWS["mkv with a gap"][0](), **WHOLE).samples
    whole = voice()[:, 0]
    assert np.abs(heard[round(1.1 * RATE) : round(1.9 * RATE)]).max() < 0.02
    after = slice(round(2.2 * RATE), round(2.8 * RATE))
    shift = max(range(-200, 200), key=lambda s: float(heard[after] @ whole[after.start + s : after.stop + s]))
    assert abs(shift) < 0.01 * RATE


def test_joined_recordings_are_each_heard_whole():
    one = read.load(MP3, **WHOLE).samples
    two = read.load(MP3 + MP3, **WHOLE).samples
    assert len(two) == 2 * len(one)
    assert np.corrcoef(two[: len(one)], two[len(one) :])[0, 1] > 0.999
    other = read.load(ROWS["mp3 joined, other rate"][0](), **WHOLE).samples
    alone = read.load(sounds("MP3"), **WHOLE).samples
    assert np.array_equal(other[: len(one) - 500], one[:-500])
    assert np.corrcoef(other[len(one) :], alone)[0, 1] > 0.999


@pytest.mark.parametrize("format", ["MP3", "OGG", "FLAC"])
def test_blocks_follow_on_one_another_without_a_seam(format):
    """To seek in an MP3 after each block, as soundfile does, goes to another place by some hundred samples."""
    content = sounds(format, rate=44100, seconds=10.0)
    samples, rate = read.read(content)
    assert len(samples) > 3 * soundfiles.BLOCK_FRAMES and rate == 44100
    assert np.array_equal(samples, soundfile.read(io.BytesIO(content), dtype="float32")[0])


def test_behind_damage_ffmpeg_goes_on():
    """libsndfile ends at the first broken frame of a FLAC: an hour would be lost for one."""
    content = bytearray(sounds("FLAC", seconds=20.0))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(flaws.Rejected, match="truncated: .*can be read"):
        read.load(bytes(content), **WHOLE)
    pytest.importorskip("av")
    heard = read.load(bytes(content), whole=False, **WHOLE)
    assert abs(heard.seconds - 20.0) < 0.3 and len(heard.flaws) == 1 and "damaged at 1" in heard.flaws[0]
    wanted = voice(seconds=20.0)[-RATE:, 0]
    assert np.corrcoef(heard.samples[-RATE:], wanted)[0, 1] > 0.99


def test_what_has_only_its_name_is_read_by_it(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "a.g722").write_bytes(encoded("g722", "g722", 16000))
    assert abs(read.load(tmp_path / "a.g722", **WHOLE).seconds - 3.0) < DELAY


def test_no_samples_at_all_are_named():
    for content in (
        wav(cut=96000),
        wav(0, cut=96000),
        wav(0, cut=96000, behind=LIST),
        sounds("AIFF", seconds=0),
        MP3[: xing(MP3)[1] + 9],
    ):
        with pytest.raises(flaws.Rejected, match="empty: the recording: no samples|empty: no samples"):
            read.load(content, whole=False, **WHOLE)


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'secret.ts'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.ts\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_playlist_opens_nothing(tmp_path, monkeypatch, text):
    """FFmpeg would follow what a file names, to other files of this machine and the network."""
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    Path("secret.ts").write_bytes(encoded("mpegts", "mp2", 48000))
    Path("a.mp3").write_text(text)
    for source in ("a.mp3", text.encode()):
        with pytest.raises(flaws.Rejected, match="unreadable"):
            read.load(source, **WHOLE)


def test_without_the_extra_every_container_says_what_to_install(tmp_path, monkeypatch):
    contents = {name: ROWS[name][0]() for name in ("avi pcm", "flv aac", "ts aac", "wavpack", "nut", "tta")}
    monkeypatch.setitem(sys.modules, "av", None)
    for content in (*contents.values(), b"something else" * 100):
        with pytest.raises(flaws.Rejected, match=r"unreadable: .*PyAV.* pip install 'moejax\[media\]'") as raised:
            read.load(content, whole=False, **WHOLE)
        assert "\n" not in str(raised.value)


NOISY = """
import sys
from moejax.audio import read, flaws
for path in sys.argv[1:]:
    try:
        print(read.load(path, whole=False, max_seconds=1e9, min_seconds=0).seconds)
    except flaws.Rejected as error:
        print(error.reason)
"""


def test_libraries_say_nothing_on_the_terminal(tmp_path):
    """libmpg123 comments on headers and broken frames, FFmpeg on everything."""
    rng = np.random.default_rng(0)
    spoiled = bytearray(MP3)
    for at in rng.integers(1000, len(MP3), 200):
        spoiled[at] ^= 0x5A
    contents = [MP3 + MP3, MP3[: len(MP3) // 2], bytes(spoiled), b"junk" * 99 + MP3, MP3[7000:]]
    if "av" in sys.modules:
        broken = bytearray(encoded("mov", "pcm_s16be", 44100))  # its index leads before the beginning
        at = broken.index(b"stco") + 12
        broken[at : at + 4] = b"\xff\xff\xff\xf0"
        contents.append(bytes(broken))
        contents += [halved(encoded("flv", "aac", 44100)), halved(encoded("mp4", "aac", 44100))]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.mp3").write_bytes(content)
    paths = [str(tmp_path / f"{number}.mp3") for number in range(len(contents))]
    done = subprocess.run([sys.executable, "-c", NOISY, *paths], capture_output=True, text=True, check=True)
    assert done.stderr == "" and len(done.stdout.splitlines()) == len(contents)


def test_what_is_hushed_speaks_again():
    there = os.fstat(2)
    with soundfiles.hushed(), soundfiles.hushed():
        assert os.fstat(2).st_rdev == os.stat(os.devnull).st_rdev
    assert (os.fstat(2).st_dev, os.fstat(2).st_ino) == (there.st_dev, there.st_ino)


def test_a_segment_of_any_file_is_that_segment(tmp_path):
    """Of what libsndfile cannot seek in, too: a manifest may name seconds of a film."""
    from moejax.audio.opening import excerpt

    contents = {"a.wav": wav(0), "b.flac": sounds("FLAC"), "c.mp3": MP3 + MP3, "d.wav": wav()[: 44 + 64000]}
    if "av" in sys.modules:
        contents["e.m4a"] = encoded("ipod", "aac", 16000)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        samples, rate = excerpt(str(tmp_path / name), 1.0, 0.5)
        whole = voice(rate)[:, 0]
        assert len(samples) == round(0.5 * rate)
        wanted = whole[round(1.0 * rate) : round(1.5 * rate)]
        best = max(
            np.corrcoef(samples.reshape(-1), whole[round(1.0 * rate) + s :][: len(wanted)])[0, 1]
            for s in range(-1200, 1200, 4)
        )
        assert best > 0.95, name
        with pytest.raises(flaws.Rejected, match="truncated: .* asked"):
            excerpt(str(tmp_path / name), 7.0, 0.5)
