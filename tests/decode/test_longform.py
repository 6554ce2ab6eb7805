"""Long audio: the features, the order of windows, the joins and the guards. What the network says is scripted here."""

import dataclasses
import tracemalloc
import types

import numpy as np
import pytest

from moejax.decode.chunked import transcribe_chunked
from moejax.decode.features import Features
from moejax.decode.guards import Guards
from moejax.decode.longform import LongformOptions, Reading, transcribe_sequential
from moejax.decode.options import DecodingOptions
from moejax.decode.results import Decoding
from moejax.decode.segments import Draft, append_in_order, cut_at_timestamps
from moejax.decode.words import Timing
from moejax.nn.whisper import WhisperConfig
from moejax.ops.audio import log_mel
from moejax.text.tokenizer import Tokenizer

CONFIG = WhisperConfig(16, 1, 1, 2, 2, 32, 32, 2200)
ENGLISH = DecodingOptions(language="en")
OFF = Guards.reference()


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(
        ["one two three four five six seven eight"] * 3, 2200, languages=("en", "de"), timestamps_seconds=30
    )


class Scripted:
    """Says what `say(second, prompt, seconds)` gives for the window that begins at this second of a `ramp`."""

    batch_size = 3

    def __init__(self, tokenizer, say, **numbers):
        self.tokenizer, self.say, self.numbers = tokenizer, say, numbers
        self.seen, self.sizes = [], []

    def encode(self, windows):
        for at in range(0, len(windows), self.batch_size):
            rows = list(range(at, min(at + self.batch_size, len(windows))))
            self.sizes.append(len(rows))
            yield types.SimpleNamespace(rows=rows, windows=[windows[row] for row in rows])

    def search(self, encoded, prompts, options):
        found = []
        for window, prompt in zip(encoded.windows, prompts, strict=True):
            second = beginning(window.audio_S)
            self.seen.append((second, len(window.audio_S) / 16000, self.tokenizer.decode(prompt), options.language))
            tokens = self.say(second, prompt, len(window.audio_S) / 16000)
            numbers = {"avg_logprob": -0.5, "no_speech_prob": 0.0, "temperature": 0.0, "compression_ratio": 1.0}
            text = self.tokenizer.decode(tokens)
            found.append(Decoding(tokens, text, options.language or "de", **{**numbers, **self.numbers}))
        return found

    def detect(self, encoded):
        return [{"en": 0.3, "de": 0.7} for _ in encoded.windows]

    def align(self, encoded, asked):
        """A word per token, half a second each."""
        return [
            [
                Timing(self.tokenizer.decode([id], strip=False), [id], i / 2, i / 2 + 0.5, 0.9)
                for i, id in enumerate(question.tokens if question else ())
            ]
            for question in asked
        ]


def ramp(seconds):
    """Noise in bursts like syllables; a click each half second tells by its height where it stands."""
    rng = np.random.default_rng(0)
    audio_S = (0.01 * rng.normal(size=int(16000 * seconds))).clip(-0.05, 0.05).astype(np.float32)
    audio_S *= np.where(np.arange(len(audio_S)) // 4000 % 2, 0.1, 1.0).astype(np.float32)
    audio_S[::8000] = 0.1 + np.arange(len(audio_S[::8000])) / 2000
    return audio_S


def beginning(audio_S):
    at = int(np.argmax(audio_S > 0.09))
    return round(float(audio_S[at] - 0.1) * 2000) / 2 - at / 16000


def said(tokenizer, *parts):
    """Tokens of timestamps (numbers) and texts."""
    return [
        token
        for part in parts
        for token in (
            tokenizer.encode(part) if isinstance(part, str) else [tokenizer.timestamp_begin + round(part * 50)]
        )
    ]


def sequential(audios, model, **options):
    align = model.align if options.get("word_timestamps") else None
    limits = LongformOptions(**{"guards": OFF, **options})
    decoding = ENGLISH if model.numbers.get("language", "en") == "en" else DecodingOptions()
    found = transcribe_sequential(
        audios,
        Reading(model=model, tokenizer=model.tokenizer, config=CONFIG, decoding=decoding, options=limits, align=align),
    )
    return [transcript for _, transcript in sorted(found, key=lambda pair: pair[0])]


def spans(transcript):
    return [(segment.text, round(segment.start, 2), round(segment.end, 2)) for segment in transcript.segments]


@pytest.mark.parametrize("hop", [160, 320])
@pytest.mark.parametrize("samples", [150, 1000, 16000, 16000 * 7 + 77])
def test_features_equal_those_of_the_whole_recording(samples, hop):
    rng = np.random.default_rng(samples)
    audio_S = (rng.normal(size=samples) * np.linspace(0.3, 1e-4, samples)).astype(np.float32)
    padded = np.zeros((samples // hop + 720) * hop, np.float32)
    padded[:samples] = audio_S[: len(padded)]
    whole_NM = np.asarray(log_mel(padded[None], n_mels=80, hop=hop))[0]
    features = Features(audio_S, hop=hop, block=300)
    assert features.frames == samples // hop
    for start, stop in ((0, 300), (37, 200), (5, 5), (max(features.frames - 40, 0), features.frames + 60), (0, 700)):
        np.testing.assert_allclose(features.slice(start, stop), whole_NM[start:stop], atol=2e-5)


def test_an_hour_needs_no_more_memory_than_its_audio(tokenizer):
    peaks = []
    for minutes in (2, 14):
        audio_S = ramp(60 * minutes)
        model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, 0.0, "one", 29.0, 29.0))
        tracemalloc.start()
        (found,) = sequential([audio_S], model, condition_on_previous_text=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found.segments) == -(-60 * minutes // 29)
    assert peaks[1] < peaks[0] + 5 * 2**20  # some blocks in flight; features of 12 minutes would be 23 MB


def test_windows_follow_the_last_finished_segment(tokenizer):
    def say(second, prompt, seconds):
        return said(tokenizer, 0.0, "one two", 8.5, 8.5, "three", 20.0, 20.0, "four")

    model = Scripted(tokenizer, say)
    (found,) = sequential([ramp(50)], model)
    assert [at for at, *_ in model.seen] == [0.0, 20.0, 40.0]
    assert [size for _, size, *_ in model.seen] == [30.0, 30.0, 10.0]
    assert spans(found)[:3] == [(" one two", 0.0, 8.5), (" three", 8.5, 20.0), (" one two", 20.0, 28.5)]
    assert [segment.seek for segment in found.segments] == [0, 0, 2000, 2000, 4000, 4000]
    assert [segment.id for segment in found.segments] == list(range(6))
    assert [prompt for _, _, prompt, _ in model.seen] == ["", "one two three", "one two three one two three"]
    assert found.text == " one two three" * 3 and found.language == "en"


def test_prompts_clips_and_detected_language(tokenizer):
    def say(second, prompt, seconds):
        return said(tokenizer, 0.0, f"{'one' if second < 30 else 'two'}", 10.0, 10.0)

    model = Scripted(tokenizer, say, temperature=0.8)
    (found,) = sequential([ramp(50)], model, initial_prompt="eight", clip_timestamps="5,15.5,41")
    # Hot windows are not believed: the prompt is the initial one first, then nothing.
    assert [(at, size, prompt) for at, size, prompt, _ in model.seen] == [
        (5.0, 10.5, "eight"),
        (15.0, 0.5, ""),
        (41.0, 9.0, ""),
    ]
    model = Scripted(tokenizer, say)
    sequential([ramp(25)], model, initial_prompt="eight", carry_initial_prompt=True)
    assert [prompt for _, _, prompt, _ in model.seen] == ["eight", "eight one", "eight one one"]
    limits = LongformOptions(guards=OFF)
    found = list(
        transcribe_sequential([ramp(5)], Reading(model=model, tokenizer=tokenizer, config=CONFIG, options=limits))
    )
    assert found[0][1].language == "de" == model.seen[-1][3]


@pytest.mark.parametrize(
    ("seconds", "encoded", "asked"), [(40, [1, 1], [None, "de"]), (30, [1], [None]), (5, [1, 1], ["de"])]
)
def test_the_language_is_found_in_the_first_window_and_that_is_encoded_once(tokenizer, seconds, encoded, asked):
    """Of a shorter recording the published models are shown the silence after it, too: that is another window."""
    model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, "one"))
    options = LongformOptions(guards=OFF)
    ((_, found),) = transcribe_sequential(
        [ramp(seconds)], Reading(model=model, tokenizer=tokenizer, config=CONFIG, options=options)
    )
    assert found.language == "de" and model.sizes == encoded and [language for *_, language in model.seen] == asked


def test_a_window_that_leads_nowhere_is_left(tokenizer):
    model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, 0.0, 0.0, "one"))
    (found,) = sequential([ramp(70)], model)
    assert [at for at, *_ in model.seen] == [0.0, 30.0, 60.0] and found.text == ""


@pytest.mark.parametrize(("seconds", "open_at_once"), [(31, 3), (10, 9), (2, 45)])
def test_open_at_once_is_what_fills_a_batch_of_whole_windows(tokenizer, seconds, open_at_once):
    model = Scripted(tokenizer, lambda second, prompt, length: said(tokenizer, 0.0, "one", min(length, 1.0)))
    read, ended = [], []

    def reading():
        for _ in range(open_at_once + 5):
            read.append(len(ended))
            yield ramp(seconds)

    options = LongformOptions(guards=OFF)
    for found in transcribe_sequential(
        reading(), Reading(model=model, tokenizer=tokenizer, config=CONFIG, decoding=ENGLISH, options=options)
    ):
        ended.append(found)
    assert max(started + 1 - done for started, done in enumerate(read)) == open_at_once
    assert max(model.sizes) == 3 and len(ended) == open_at_once + 5


def test_neighbours_change_nothing(tokenizer):
    def say(second, prompt, seconds):
        rng = np.random.default_rng([int(second * 100), *prompt[-3:]])
        cuts = np.sort(rng.integers(1, 1400, 3)) * 0.02
        return said(
            tokenizer, 0.0, "one two", cuts[0], cuts[1], "three" if rng.random() < 0.5 else "six", cuts[2], cuts[2]
        )

    audios = [ramp(seconds) for seconds in (3, 95, 31, 0.001, 64, 12, 40)]
    read = []

    def reading():
        for audio_S in audios:
            read.append(len(ended))
            yield audio_S

    ended, model = [], Scripted(tokenizer, say)
    options = LongformOptions(guards=OFF, word_timestamps=True)
    for place, transcript in transcribe_sequential(
        reading(),
        Reading(model=model, tokenizer=tokenizer, config=CONFIG, decoding=ENGLISH, options=options, align=model.align),
    ):
        ended.append((place, transcript))
    assert max(model.sizes) == 3 and sorted(place for place, _ in ended) == list(range(7))
    for place, transcript in ended:
        (alone,) = sequential([audios[place]], Scripted(tokenizer, say), word_timestamps=True)
        assert alone == transcript
    assert dict(ended)[3].segments == [] and dict(ended)[3].text == ""


def test_words_move_segments_and_the_next_window(tokenizer):
    model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, 0.0, "one two three", 9.0, 9.0))
    (found,) = sequential([ramp(8)], model, word_timestamps=True)
    assert [word.word for word in found.segments[0].words] == [" one", " two", " three"]
    assert spans(found)[0] == (" one two three", 0.0, 1.5) and model.seen[1][0] == 1.5
    with pytest.raises(ValueError, match="word_timestamps needs `align`"):
        transcribe_sequential(
            [], Reading(model=model, tokenizer=tokenizer, config=CONFIG, options=LongformOptions(word_timestamps=True))
        )
    with pytest.raises(ValueError, match="hallucination_silence_threshold needs word_timestamps"):
        sequential([], model, hallucination_silence_threshold=1.0)


def test_guards_withhold_and_count(tokenizer):
    def say(second, prompt, seconds):
        return said(tokenizer, 0.0, "one two", 20.0, 20.0)

    loud = ramp(35)
    for numbers, reason in (
        ({"no_speech_prob": 0.7, "avg_logprob": -1.2}, "no_speech"),
        ({"compression_ratio": 3.4}, "compression"),
    ):
        model = Scripted(tokenizer, say, **numbers)
        (found,) = sequential([loud], model, guards=Guards())
        assert found.dropped == {reason: 2} and found.text == "" and found.segments == []
        assert [at for at, *_ in model.seen] == [0.0, 30.0]  # the whole window is left
    model = Scripted(tokenizer, say, no_speech_prob=0.7, avg_logprob=-0.2)
    assert sequential([loud], model, guards=Guards())[0].dropped == {}
    model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, 0.0, "one two " * 6, 1.0, 1.0))
    assert sequential([loud[:16000]], model, guards=Guards())[0].dropped == {"length_ratio": 1}
    for quiet in (np.zeros(16000 * 40, np.float32), loud * 1e-4, white_noise(40), np.zeros(800, np.float32)):
        model = Scripted(tokenizer, say)
        found = sequential([quiet], model, guards=Guards())[0]
        assert found.dropped == {"energy": -(-len(quiet) // 480000)} and model.seen == []
    model = Scripted(tokenizer, lambda second, prompt, seconds: [], no_speech_prob=0.9, avg_logprob=-2.0)
    assert sequential([loud], model, guards=Guards())[0].dropped == {}  # nothing was withheld


def white_noise(seconds):
    return (0.1 * np.random.default_rng(3).normal(size=16000 * seconds)).astype(np.float32)


def test_each_guard_can_be_switched_off():
    off = Guards(**{field.name: None for field in dataclasses.fields(Guards)})
    worst = Decoding([], "one " * 900, "en", -9.0, 1.0, 1.0, 99.0)
    assert off.before(np.zeros(16000)) is None and off.after(worst, 1.0) is None
    assert [Guards.reference().before(np.zeros(16000)), Guards.reference().after(worst, 1.0)] == [None, "no_speech"]
    speech = white_noise(2) * (np.arange(32000) % 8000 > 4000)  # syllables
    assert Guards().before(speech) is None and Guards().before(speech * 1e-4) == "energy"
    dense = Decoding([], "的" * 50, "zh", -0.1, 0.0, 0.0, 1.0)
    assert Guards().after(dense, 2.0) == "length_ratio"
    assert Guards().after(dataclasses.replace(dense, language="en"), 2.0) is None


def test_the_last_piece_of_a_window_is_kept_only_where_nobody_returns(tokenizer):
    found = Decoding(said(tokenizer, 1.0, "one", 4.0, 5.0, "two"), "", "en", 0.0, 0.0, 0.0, 1.0)
    cut = cut_at_timestamps(found, tokenizer, seek=0, offset=100.0, seconds=12.0)
    assert [(d.text, d.start, d.end) for d in cut.drafts] == [(" one", 101.0, 104.0)] and cut.consumed == 4.0
    cut = cut_at_timestamps(found, tokenizer, seek=0, offset=100.0, seconds=12.0, keep_tail=True)
    assert [(d.text, d.start, d.end) for d in cut.drafts][1] == (" two", 105.0, 112.0)


WORDS = "one two three four five six seven eight".split()


def speaking(tokenizer, times=True):
    """A network that hears one word at the start of every fifth second."""

    def say(second, prompt, seconds):
        at = [t for t in range(0, 40, 5) if second <= t < second + seconds]
        parts = [part for t in at for part in (t - second, WORDS[t // 5], t - second + 1)]
        if not times:
            return said(tokenizer, *(WORDS[t // 5] for t in at))
        return said(tokenizer, *(part for part in parts))

    return say


def cut_every(seconds):
    def cut(audio_S, most):
        edges = [*range(0, len(audio_S), int(seconds * 16000)), len(audio_S)]
        return list(zip(edges[:-1], edges[1:], strict=True))

    return cut


def chunked(audios, model, cut, **options):
    reading = Reading(model=model, tokenizer=model.tokenizer, config=CONFIG, decoding=ENGLISH, **options)
    found = transcribe_chunked(audios, reading, cut)
    return [transcript for _, transcript in sorted(found, key=lambda pair: pair[0])]


def test_pieces_are_independent_and_joined_in_order(tokenizer):
    limits = LongformOptions(guards=OFF, initial_prompt="eight")
    audios = [ramp(40), ramp(7), ramp(26)]
    model = Scripted(tokenizer, speaking(tokenizer))
    done = []
    found = chunked(audios, model, cut=cut_every(12), options=limits, progress=lambda *told: done.append(told))
    assert [transcript.text for transcript in found][1:] == [" one two", " one two three four five six"]
    assert found[0].text == " " + " ".join(WORDS)
    assert spans(found[0])[2:5] == [(" three", 10.0, 11.0), (" four", 15.0, 16.0), (" five", 20.0, 21.0)]
    assert {prompt for _, _, prompt, _ in model.seen} == {"eight"} and max(model.sizes) == 3
    assert max(done)[1:] == (26.0, 26.0) and (0, 40.0, 40.0) in done
    for audio_S, transcript in zip(audios, found, strict=True):
        assert chunked([audio_S], Scripted(tokenizer, speaking(tokenizer)), cut=cut_every(12), options=limits) == [
            transcript
        ]


def draft(tokenizer, text, start, end):
    tokens = said(tokenizer, 0.0, text, end - start)
    return Draft(0, start, end, tokens, " " + text, Decoding(tokens, text, "en", 0.0, 0.0, 0.0, 1.0))


def test_times_after_a_pieces_end_come_back_into_it_and_no_text_is_lost(tokenizer):
    """Pieces of 10 and 12 s; the network speaks of a window of 30 s."""

    def piece(*parts):
        return [draft(tokenizer, *part) for part in parts]

    drafts = []
    append_in_order(drafts, piece(("one", 2, 5), ("two", 4, 14), ("three", 25, 28), ("four", 28, 29)), 0, 10)
    append_in_order(drafts, piece(("five", 31, 32), ("six", 33, 35)), 10, 22)
    append_in_order(drafts, piece(("seven", 20, 24), ("three", 24, 24), ("eight", 25, 26)), 18, 30)
    assert [(one.text, one.start, one.end) for one in drafts] == [
        *((" one", 2, 5), (" two three four", 5, 10), (" five six", 10, 22)),
        *((" seven", 22, 24), (" eight", 25, 26)),
    ]
