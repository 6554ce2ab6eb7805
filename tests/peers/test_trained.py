"""A base that moejax trained, in every recogniser: the same text, tokens, segment times and word times.

    MOEJAX_TRAINED=runs/recognizer pytest tests/peers/test_trained.py -s

MOEJAX_TRAINED is a workdir of configs/recognizer.py whose base stands. Real utterances of its test part, and three
recordings of 2 to 5 minutes made by joining them, go through openai-whisper's `transcribe`, transformers' `generate`
and moejax with the same weights. `-s` prints the counts. Opt-in: needs openai-whisper, transformers with torch.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import whisper

import moejax
from moejax.audio import read as audio_io
from moejax.audio.constants import SAMPLE_RATE
from moejax.data.manifest import Manifest
from moejax.decode.decoder import Window
from moejax.decode.guards import Guards
from moejax.decode.options import DecodingOptions
from moejax.export import write
from moejax.speech.background import KINDS, background

pytestmark = pytest.mark.filterwarnings("default")
UTTERANCES = 60
SECONDS = (125.0, 200.0, 290.0)  # of the joined recordings
STEP = 0.02  # one step of Whisper's times


@pytest.fixture(scope="module")
def work():
    """The trained workdir. Errors: the variable that names it is not set."""
    return Path(os.environ["MOEJAX_TRAINED"]).resolve()


@pytest.fixture(scope="module")
def test_part(work):
    """Audio [S] of all utterances of the test part, by the manifest's order."""
    manifest = Manifest.load(work / "describe" / "manifest.parquet", root=work)
    paths = [manifest.audio_paths()[i] for i in np.flatnonzero(manifest.column("split") == "test")]
    return [audio_io.gate(*audio_io.read(path)).samples for path in paths]


@pytest.fixture(scope="module")
def utterances(test_part):
    rows = np.random.default_rng(0).permutation(len(test_part))[:UTTERANCES]
    return [test_part[row] for row in rows]


@pytest.fixture(scope="module")
def recordings(test_part):
    """Utterances of all speakers in turn, 0.5 to 2 s apart, under a faint noise."""
    found = []
    for seed, seconds in enumerate(SECONDS):
        rng = np.random.default_rng(seed + 1)
        parts, length = [], 0
        for row in rng.permutation(len(test_part)):
            gap = np.zeros(int(rng.uniform(0.5, 2.0) * SAMPLE_RATE), np.float32)
            parts += [gap, test_part[row]]
            length += len(gap) + len(test_part[row])
            if length >= seconds * SAMPLE_RATE:
                break
        joined = np.concatenate(parts)[: int(seconds * SAMPLE_RATE)]
        found.append((joined + rng.normal(0, 2e-4, len(joined))).astype(np.float32))
    assert [len(x) >= 120 * SAMPLE_RATE for x in found] == [True] * 3
    return found


@pytest.fixture(scope="module")
def ours(work):
    return moejax.load(work, system="base")


@pytest.fixture(scope="module")
def theirs(work, tmp_path_factory):
    """openai-whisper's model, out of our export."""
    folder = tmp_path_factory.mktemp("openai")
    write.run(work, "openai", folder / "out", system="base", dtype="float32")
    return whisper.load_model(str(folder / "out" / "model.pt"), device="cpu")


def segments(found):
    """(start, end, text) of either side's segments."""
    if isinstance(found, dict):
        return [(s["start"], s["end"], s["text"].strip()) for s in found["segments"]]
    return [(s.start, s.end, s.text.strip()) for s in found.segments]


def agree(found, want):
    """Same text, as many segments, and times to one step."""
    a, b = segments(found), segments(want)
    return [x[2] for x in a] == [y[2] for y in b] and all(
        abs(x[0] - y[0]) <= STEP + 1e-6 and abs(x[1] - y[1]) <= STEP + 1e-6 for x, y in zip(a, b, strict=True)
    )


def compare(ours, theirs, audios, **options):
    """Places where the two differ, printed. Theirs has no guards but the reference's own rule, so neither has ours.

    A window that climbs the ladder is sampled, by two random generators: where the reference reports a temperature
    above 0 the two need not agree. Recordings are compared at temperature 0.
    """
    found = ours.transcribe(list(audios), language="en", guards="reference", **options)
    want = [theirs.transcribe(audio, language="en", fp16=False, **options) for audio in audios]
    different = [i for i, (a, b) in enumerate(zip(found, want, strict=True)) if not agree(a, b)]
    for i in different:
        print(f"  {i}: ours   {segments(found[i])}\n  {i}: theirs {segments(want[i])}")
        print(f"     their temperatures {sorted({s['temperature'] for s in want[i]['segments']})}")
    exact = sum(segments(a) == segments(b) for a, b in zip(found, want, strict=True))
    print(f"{len(audios) - len(different)} of {len(audios)} agree, {exact} to the last digit; {options}")
    return different, found, want


def test_utterances_as_openai_whisper(ours, theirs, utterances):
    different, _, want = compare(ours, theirs, utterances)
    assert len(different) <= 0.05 * UTTERANCES
    assert sum(bool(x["text"].strip()) for x in want) > 0.9 * UTTERANCES


def test_long_recordings_as_openai_whisper(ours, theirs, recordings):
    different, found, want = compare(ours, theirs, recordings, temperature=0.0)
    pairs = [(a, b) for x, y in zip(found, want, strict=True) for a, b in zip(segments(x), segments(y), strict=False)]
    print(f"{len(pairs)} segments; most in one recording {max(len(segments(x)) for x in found)}")
    assert not different


def test_beam_of_five_as_openai_whisper(ours, theirs, utterances):
    different, _, _ = compare(ours, theirs, utterances, beam_size=5)
    assert len(different) <= 0.05 * UTTERANCES


def test_word_times_as_openai_whisper(ours, theirs, utterances, recordings):
    _, found, want = compare(ours, theirs, [*utterances, *recordings], word_timestamps=True, temperature=0.0)
    gaps, same = [], 0
    for a, b in zip(found, want, strict=True):
        left = [word for segment in a.segments for word in segment.words]
        right = [word for segment in b["segments"] for word in segment["words"]]
        if [w.word for w in left] == [w["word"] for w in right]:
            same += 1
            gaps += [abs(x.start - y["start"]) for x, y in zip(left, right, strict=True)]
            gaps += [abs(x.end - y["end"]) for x, y in zip(left, right, strict=True)]
    gaps = np.array(gaps)
    print(
        f"{same} recordings with the same words, {len(gaps)} times: median {np.median(gaps):.3f} s,"
        f" 95th percentile {np.quantile(gaps, 0.95):.3f}, largest {gaps.max():.3f}"
    )
    assert same >= 0.95 * len(found)
    assert np.median(gaps) <= 0.05


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("timestamps", [False, True])
def test_tokens_as_transformers(work, ours, test_part, beams, timestamps):
    """All of the test part, one window each, by Whisper's own `generate`."""
    folder = work / json.loads((work / "base" / "model.json").read_text())["path"]
    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    options = DecodingOptions(
        language="en",
        without_timestamps=not timestamps,
        sample_len=224,
        **(dict(beam_size=beams, ranking="transformers") if beams > 1 else {}),
    )
    wrong, total = [], 0
    for start in range(0, len(test_part), 24):
        audios = test_part[start : start + 24]
        mel = extractor(audios, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        with torch.no_grad():
            want = model.generate(
                mel,
                language="en",
                task="transcribe",
                num_beams=beams,
                return_timestamps=timestamps,
                do_sample=False,
                max_new_tokens=224,
                max_length=None,
                temperature=0.0,
            )
        windows = [Window(np.ascontiguousarray(mel_MN.T)) for mel_MN in mel.numpy()]
        found = ours.decoder.decode(windows, options=options)
        for i, (a, b) in enumerate(zip(found, want.tolist(), strict=True)):
            b = first_window([id for id in b if id < ours.tokenizer.eot or id >= ours.tokenizer.timestamp_begin], ours)
            total += 1
            if list(a.tokens) != b:
                wrong.append(start + i)
                print(f"  {start + i}: ours {list(a.tokens)}\n  {start + i}: transformers {b}")
    print(f"{total - len(wrong)} of {total} the same; beams {beams}, timestamps {timestamps}")
    assert len(wrong) <= 0.01 * total


def first_window(ids, recognizer):
    """What `generate` heard in its first window: with times it goes on behind the last one, and times begin anew."""
    latest = 0
    for at, id in enumerate(ids):
        if id >= recognizer.tokenizer.timestamp_begin:
            if id < latest:
                return ids[:at]
            latest = id
    return ids


def music(rng, seconds):
    """Chords of three decaying tones with overtones, four a second."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    out, beat = np.zeros(len(t)), np.arange(int(0.25 * SAMPLE_RATE)) / SAMPLE_RATE
    for start in range(0, len(t) - len(beat), len(beat)):
        for tone in 220 * 2 ** (rng.integers(0, 24, 3) / 12):
            for overtone in (1, 2, 3):
                wave = np.sin(2 * np.pi * tone * overtone * beat) * np.exp(-6 * beat) / overtone
                out[start : start + len(beat)] += 0.05 * wave
    return out.astype(np.float32)


def test_nothing_is_said_where_nobody_speaks(ours):
    """Ten recordings of each kind, 5 to 40 s: how many get any text, with and without the guards.

    Noise and silence get none. Music passes the guards by design (it rises and falls as speech does): what it gets is
    the network's answer, and the rate that the README states.
    """
    rng = np.random.default_rng(0)
    kinds = {
        kind: [
            background(rng, int(s * SAMPLE_RATE), kind, level)
            for s, level in zip(rng.uniform(5, 40, 10), 10 ** rng.uniform(-4, -1.3, 10), strict=True)
        ]
        for kind in KINDS
    }
    kinds["chords"] = [music(rng, s) for s in rng.uniform(5, 40, 10)]
    rates = {}
    for name, guards in (("guarded", Guards()), ("reference", Guards.reference())):
        for kind, audios in kinds.items():
            found = ours.transcribe(audios, language="en", guards=guards)
            rates[name, kind] = sum(bool(x.text.strip()) for x in found)
            print(f"  {name:>9} {kind:<8} {rates[name, kind]} of {len(audios)} with text")
    guarded = sum(count for (name, _), count in rates.items() if name == "guarded")
    print(f"hallucination rate {guarded} of {10 * len(kinds)} with guards")
    assert guarded <= 0.15 * 10 * len(kinds)
    assert not any(rates["guarded", kind] for kind in ("silence", "white", "pink", "brown"))
    assert all(rates["guarded", kind] <= rates["reference", kind] for kind in kinds)


def test_any_length(ours, test_part):
    """0.05 s, 40 s and 10 minutes."""
    rng = np.random.default_rng(1)
    long = np.concatenate([x for row in rng.permutation(len(test_part)) for x in (test_part[row], np.zeros(12000))])
    for seconds in (0.05, 40.0, 600.0):
        audio = np.resize(long, int(seconds * SAMPLE_RATE)).astype(np.float32)
        found = ours.transcribe(audio, language="en")
        times = [(s.start, s.end) for s in found.segments]
        print(f"  {seconds} s: {len(times)} segments, {len(found.text.split())} words")
        # The last end is the model's guess, as in the reference: it may lie behind the recording's
        assert all(0 <= a <= b and a <= seconds for a, b in times)
        assert times == sorted(times)
