"""Published weights on real speech, in every recogniser: the same text, tokens, segment times and word times.

    MOEJAX_TEST_WEIGHTS=WEIGHTS MOEJAX_TEST_DATA=DATA pytest tests/peers/test_real_speech.py -s

`real_speech` says what the folders hold. Opt-in: needs openai-whisper, faster-whisper, transformers with torch, and
about an hour on two cores; `-s` prints counts and every difference. The light form is `tests/parity`.
"""

import numpy as np
import pytest
import real_speech
import torch
import transformers
from real_speech import segments, text, told, words

import moejax
from moejax.audio.constants import SAMPLE_RATE
from moejax.decode.decoder import Window
from moejax.decode.options import DecodingOptions

pytestmark = pytest.mark.filterwarnings("default")
MODELS = ("tiny.en", "base")
SECONDS = (75.0, 180.0, 330.0)
STEP = 0.0051  # times are written in hundredths
PROMPT = "A talk about Margaret, Mister Thornton and the mills of Milton."


@pytest.fixture(scope="module", autouse=True)
def _optimised():
    torch.set_num_threads(1)  # its threads would wait for those of JAX
    with real_speech.optimised():
        yield


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name):
    return real_speech.weights(name)


@pytest.fixture(scope="module")
def clips(name):
    """At least sixty, grouped by language."""
    if name.endswith(".en"):
        found = real_speech.rows("english_clips") + real_speech.rows("librispeech_control", 5)
        return found + real_speech.rows("speechocean762", 211) + real_speech.rows("disfluent_styles", 3)
    found = real_speech.rows("english_clips", 2) + real_speech.rows("librispeech_control", 9)
    found += real_speech.rows("speechocean762", 300) + real_speech.rows("disfluent_styles", 5)
    return found + [c for code in ("de", "fr", "es") for c in real_speech.rows("fleurs_mini", language=code)]


@pytest.fixture(scope="module")
def recordings(clips):
    """Three of 1 to 6 minutes; of a multilingual model's one is German."""
    control = real_speech.rows("librispeech_control")
    german = [one for one in clips if one.language == "de"]
    first = german or real_speech.rows("disfluent_styles")
    joined = [real_speech.joined(*x) for x in zip((first, control, control[::-1]), SECONDS, strict=True)]
    assert all(len(one.audio) > 60 * SAMPLE_RATE for one in joined)
    return joined


@pytest.fixture(scope="module")
def ours(folder):
    return moejax.load(folder)


@pytest.fixture(scope="module")
def theirs(folder, name, tmp_path_factory):
    return real_speech.openai(folder, name, tmp_path_factory.mktemp("openai"))


@pytest.fixture(scope="module")
def converted(folder, name, tmp_path_factory):
    return real_speech.hugging_face(folder, name, tmp_path_factory.mktemp("hf"))


def by_language(clips):
    found = {}
    for one in clips:
        found.setdefault(one.language, []).append(one)
    return found.values()


def both(ours, theirs, clips, **options):
    """(ours, theirs) of each clip at temperature 0; ours with no other guards than the reference has."""
    a, b = [], []
    for group in by_language(clips):
        given = {"language": group[0].language, "temperature": 0.0, **options}
        a += ours.transcribe([one.audio for one in group], guards="reference", **given)
        b += [theirs.transcribe(one.audio, fp16=False, **given) for one in group]
    return a, b


def rates(what, clips, a, b):
    """Word errors of both, by language, printed; they are the same to the digit where the texts are."""
    start = 0
    for group in by_language(clips):
        part = slice(start, start + len(group))
        start += len(group)
        counts = [real_speech.errors(group, [text(x) for x in side[part]]) for side in (a, b)]
        print(
            f"  {what} {group[0].language}: errors of {counts[0][1]} words: ours {counts[0][0]}, theirs {counts[1][0]}"
        )


@pytest.mark.parametrize("beams", [None, 5])
def test_clips_as_openai_whisper(name, ours, theirs, clips, beams):
    assert len(clips) >= 60
    a, b = both(ours, theirs, clips, beam_size=beams)
    differ = told(f"{name}, beams {beams}, openai-whisper", clips, a, b, segments)
    rates(name, clips, a, b)
    assert len(differ) <= 0.05 * len(clips)


CASES = {
    "defaults": {},
    "unconditioned": {"condition_on_previous_text": False},
    "prompt": {"initial_prompt": PROMPT},
    "carried prompt": {"initial_prompt": PROMPT, "carry_initial_prompt": True},
}


def gaps_of(a, b):
    """Seconds between both sides' starts and ends of the same words."""
    return np.abs(np.array([w[1:] for w in words(a)]) - np.array([w[1:] for w in words(b)])).ravel()


@pytest.mark.parametrize("case", CASES)
def test_recordings_as_openai_whisper(name, ours, theirs, recordings, case):
    a, b = both(ours, theirs, recordings, word_timestamps=case == "defaults", **CASES[case])
    differ = told(f"{name}, recordings, {case}", recordings, a, b, segments)
    rates(name, recordings, a, b)
    if case == "defaults":
        gaps = np.concatenate([gaps_of(x, y) for i, (x, y) in enumerate(zip(a, b, strict=True)) if i not in differ])
        print(f"  {len(gaps)} word times: {np.sum(gaps > STEP)} differ, by at most {gaps.max():.3f} s")
        assert np.mean(gaps > STEP) < 0.01
    assert len(differ) <= 1


def test_word_times_as_openai_whisper(name, ours, theirs, clips):
    some = clips[::3]
    a, b = both(ours, theirs, some, word_timestamps=True)
    differ = told(f"{name}, words", some, a, b, words)
    assert len(differ) <= 0.1 * len(some)


def test_translation_as_openai_whisper(name, ours, theirs, clips):
    if name.endswith(".en"):
        pytest.skip("an English-only model does not translate")
    some = [one for one in clips if one.language != "en"][::2]
    a, b = both(ours, theirs, some, task="translate")
    differ = told(f"{name}, translate", some, a, b, segments)
    assert len(differ) <= 0.05 * len(some)


def test_language_as_openai_whisper(name, ours, theirs, clips):
    if name.endswith(".en"):
        pytest.skip("an English-only model does not tell languages")
    some = clips[::3]
    a = ours.transcribe([one.audio for one in some], guards="reference", temperature=0.0, sample_len=5)
    b = [theirs.transcribe(one.audio, fp16=False, temperature=0.0, sample_len=5) for one in some]
    languages = [[x.language for x in a], [x["language"] for x in b]]
    print(f"\n{name}, languages: {sum(x == y for x, y in zip(*languages, strict=True))} of {len(some)} equal")
    assert languages[0] == languages[1]


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("timestamps", [False, True])
def test_tokens_as_transformers(name, ours, converted, clips, beams, timestamps):
    """One window each, by Whisper's own `generate`."""
    model = transformers.WhisperForConditionalGeneration.from_pretrained(converted).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(converted)
    some = [one for one in clips if len(one.audio) <= 30 * SAMPLE_RATE][:: 1 if beams == 1 else 2]
    a, b = [], []
    for group in by_language(some):
        for start in range(0, len(group), 8):
            part = [one.audio for one in group[start : start + 8]]
            mel = extractor(part, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
            said = {} if name.endswith(".en") else {"language": group[0].language, "task": "transcribe"}
            with torch.no_grad():
                want = model.generate(
                    mel,
                    num_beams=beams,
                    return_timestamps=timestamps,
                    do_sample=False,
                    max_new_tokens=224,
                    max_length=None,
                    temperature=0.0,
                    **said,
                )
            options = DecodingOptions(
                language=group[0].language,
                without_timestamps=not timestamps,
                sample_len=224,
                **(dict(beam_size=beams, ranking="transformers") if beams > 1 else {}),
            )
            windows = [Window(np.ascontiguousarray(mel_MN.T)) for mel_MN in mel.numpy()]
            a += [list(one.tokens) for one in ours.decoder.decode(windows, options=options)]
            b += [first_window(row, ours.tokenizer) for row in want.tolist()]
    differ = told(f"{name}, transformers, beams {beams}, timestamps {timestamps}", some, a, b, ours.tokenizer.decode)
    tokens = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    print(f"  tokens: {len(some) - len(tokens)} of {len(some)} equal")
    for i in set(tokens) - set(differ):
        print(f"  {some[i].name}\n    ours   {a[i]}\n    theirs {b[i]}")
    assert len(tokens) <= 0.05 * len(some)


def first_window(ids, tokenizer):
    """What `generate` heard in its first window: with times it goes on behind the last one, and times begin anew."""
    ids, latest = [id for id in ids if id < tokenizer.eot or id >= tokenizer.timestamp_begin], 0
    for at, id in enumerate(ids):
        if id >= tokenizer.timestamp_begin:
            if id < latest:
                return ids[:at]
            latest = id
    return ids


@pytest.mark.parametrize("beams", [1, 5])
def test_clips_as_faster_whisper(name, folder, ours, clips, beams):
    """In float32. It pads features with zeros where the reference hears silence, so a few texts differ."""
    engine = pytest.importorskip("faster_whisper").WhisperModel(
        str(folder), device="cpu", compute_type="float32", cpu_threads=1
    )
    a, b, some = [], [], clips[:: 1 if beams == 1 else 2]
    for group in by_language(some):
        given = {"language": group[0].language, "temperature": 0.0}
        a += ours.transcribe(
            [one.audio for one in group], guards="reference", beam_size=beams if beams > 1 else None, **given
        )
        for one in group:
            found, _ = engine.transcribe(one.audio, beam_size=beams, **given)
            b.append({"text": "".join(segment.text for segment in found)})
    told(f"{name}, faster-whisper, beams {beams}", some, a, b)
    rates(name, some, a, b)


def test_words_where_nobody_speaks(name, folder, ours, theirs):
    """Sixty recordings of noises: our default guards write no more than the others do by their defaults."""
    if name != "tiny.en":
        pytest.skip("one model is enough")
    engine = pytest.importorskip("faster_whisper").WhisperModel(
        str(folder), device="cpu", compute_type="float32", cpu_threads=1
    )
    noises = [one for one in real_speech.rows("esc10")[::6]][:60]
    said = {
        "moejax": [x.text for x in ours.transcribe([one.audio for one in noises])],
        "openai-whisper": [theirs.transcribe(one.audio, fp16=False)["text"] for one in noises],
        "faster-whisper": ["".join(s.text for s in engine.transcribe(one.audio)[0]) for one in noises],
    }
    counts = {who: sum(len(x.split()) for x in texts) for who, texts in said.items()}
    print(
        f"\nwords on {len(noises)} noises: {counts}; recordings with text: {[sum(map(bool, t)) for t in said.values()]}"
    )
    assert counts["moejax"] <= min(counts["openai-whisper"], counts["faster-whisper"])
