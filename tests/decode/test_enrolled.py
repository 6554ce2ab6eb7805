"""A speaker's phrases in front of every window. What the network says is scripted, or a small network's own."""

import types

import numpy as np
import pytest
import tiny_decoder as tiny

from moejax.audio.read import chunks
from moejax.decode import rules
from moejax.decode.chunked import transcribe_chunked
from moejax.decode.enrolled import fitting, joined
from moejax.decode.guards import Guards
from moejax.decode.longform import LongformOptions, Reading, transcribe_sequential
from moejax.decode.options import DecodingOptions
from moejax.decode.prefix import starts
from moejax.decode.results import Decoding
from moejax.decode.search import SearchPlan
from moejax.decode.words import Timing
from moejax.errors import BadValue
from moejax.nn.whisper import WhisperConfig
from moejax.text.tokenizer import Tokenizer

RATE = 16000
CONFIG = WhisperConfig(16, 1, 1, 2, 2, 32, 32, 2200)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(
        ["one two three four five six seven eight"] * 3, 2200, languages=("en", "de"), timestamps_seconds=30
    )


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


class Hearing:
    """Says a word in each half of what is not phrases in a window, and keeps what it was asked."""

    batch_size = 2

    def __init__(self, tokenizer):
        self.tokenizer, self.asked, self.heard = tokenizer, [], []

    def encode(self, windows):
        for at in range(0, len(windows), self.batch_size):
            rows = list(range(at, min(at + self.batch_size, len(windows))))
            yield types.SimpleNamespace(rows=rows, windows=[windows[row] for row in rows])

    def search(self, encoded, prompts, options, before=None, earliest=None):
        none = [None] * len(encoded.rows)
        found = []
        for window, ids, first in zip(encoded.windows, before or none, earliest or none, strict=True):
            assert len(window.audio_S) // 160 <= len(window.mel_NM) <= 3000
            self.asked.append((ids, first, len(window.audio_S)))
            begin, first = self.tokenizer.timestamp_begin, first or 0
            last = len(window.audio_S) // 320
            self.heard.append(window.audio_S[first * 320 :])
            three, four = map(self.tokenizer.encode, (" three", " four"))
            middle = begin + (first + last) // 2
            tokens = [begin + first, *three, middle, middle, *four, begin + last]
            if options.without_timestamps:
                tokens = [*three, *four]
            found.append(Decoding(tokens, self.tokenizer.decode(tokens), "en", -0.1, 0.0, 0.0, 1.0))
        return found

    def detect(self, encoded):
        return [{"en": 1.0} for _ in encoded.rows]

    def align(self, encoded, asked):
        """A word per token; each lasts a second, from 0 on, as if the whole window were spoken."""
        return [
            [Timing(self.tokenizer.decode([id], strip=False), [id], i, i + 1, 0.9) for i, id in enumerate(q.tokens)]
            if q
            else []
            for q in asked
        ]


def reading(tokenizer, contexts, **more):
    model = Hearing(tokenizer)
    options = LongformOptions(guards=Guards.reference(), word_timestamps=more.pop("words", False))
    decoding = DecodingOptions(language="en", **more)
    align = model.align if options.word_timestamps else None
    return model, Reading(
        model=model,
        tokenizer=tokenizer,
        config=CONFIG,
        decoding=decoding,
        options=options,
        align=align,
        contexts=contexts.__getitem__,
    )


def test_phrases_are_joined_with_pauses_on_whole_timestamps():
    context = joined([noise(1.234), noise(2.0, 1)], ["One.", "Two."], pause=0.5)
    assert context.spans[0] == (0, round(1.234 * RATE)) and len(context.audio_S) % 320 == 0
    (_, end), (start, stop) = context.spans
    assert 0.5 <= (start - end) / RATE < 0.52 and 0.5 <= (len(context.audio_S) - stop) / RATE < 0.52
    np.testing.assert_array_equal(context.audio_S[start:stop], noise(2.0, 1))
    assert not context.audio_S[end:start].any() and not context.audio_S[stop:].any()


def test_phrases_that_fill_the_window_and_texts_that_lack_are_refused():
    with pytest.raises(BadValue, match=r"3 phrases with pauses last 25.5 s; at most 22 s"):
        joined([noise(8.0)] * 3, ["One."] * 3)
    with pytest.raises(BadValue, match="2 phrases and 1 texts"):
        joined([noise(1.0)] * 2, ["One."])


def test_texts_are_between_their_times_where_the_model_writes_such(tokenizer):
    context = joined([noise(1.0), noise(2.0)], ["one two", " three"], pause=0.5)
    begin, one, three = tokenizer.timestamp_begin, tokenizer.encode(" one two"), tokenizer.encode(" three")
    assert context.tokens(tokenizer, timed=False) == [*one, *three]
    timed = [begin, *one, begin + 50, begin + 75, *three, begin + 175]
    assert context.tokens(tokenizer, timed=True) == timed


@pytest.mark.parametrize("how", ["sequential", "chunked"])
def test_a_long_recording_is_heard_whole_and_on_its_own_clock(tokenizer, how):
    context, audio_S = joined([noise(3.0, 5), noise(4.0, 6)], ["one", "two"]), noise(70.0)
    model, how_read = reading(tokenizer, [context])
    if how == "sequential":
        found = transcribe_sequential([audio_S], how_read)
    else:
        found = transcribe_chunked([audio_S], how_read, chunks)
    ((_, transcript),) = found
    heard_S = np.concatenate(model.heard)
    if how == "chunked":  # the shortest pieces come first
        heard_S, audio_S = np.sort(heard_S), np.sort(audio_S)
    np.testing.assert_array_equal(heard_S, audio_S)  # nothing twice, nothing lost
    assert all(ids == context.tokens(tokenizer, True) for ids, _, _ in model.asked)
    assert all(first == round(context.seconds * 50) for _, first, _ in model.asked)
    assert all(size <= 30 * RATE for *_, size in model.asked)
    assert [round(segment.start, 2) for segment in transcript.segments][0] == 0.0
    assert transcript.segments[-1].end == pytest.approx(70.0, abs=0.021)
    gaps = [b.start - a.end for a, b in zip(transcript.segments, transcript.segments[1:], strict=False)]
    assert len(gaps) > 1 and all(-1e-6 <= gap < 0.05 for gap in gaps)  # each window is said from its start to its end
    assert set(transcript.text.split()) == {"three", "four"}  # nothing of the phrases


def test_words_are_those_behind_the_phrases(tokenizer):
    context = joined([noise(1.0)], ["one two"], pause=0.5)
    _, how_read = reading(tokenizer, [context], words=True)
    ((_, transcript),) = transcribe_sequential([noise(4.0)], how_read)
    words = [(word.word.strip(), word.start) for segment in transcript.segments for word in segment.words]
    own = len(tokenizer.encode(" one two"))  # a word per token, a second each, and the phrases last 1.5 s
    assert [word for word, _ in words] == ["three", "four"]
    assert words[0][1] == pytest.approx(own - context.seconds, abs=0.01)


def test_speakers_share_batches_each_with_its_own_phrases(tokenizer):
    contexts = [joined([noise(2.0)], ["one"]), None, joined([noise(3.0)], ["two"])]
    model, how_read = reading(tokenizer, contexts, without_timestamps=True)
    found = dict(transcribe_sequential([noise(4.0, 1), noise(5.0, 2), noise(6.0, 3)], how_read))
    assert {transcript.text.strip() for transcript in found.values()} == {"three four"}
    said = {(tokenizer.decode(ids or []).strip(), size / RATE) for ids, _, size in model.asked}
    assert said == {("one", 4 + 2.5), ("", 5.0), ("two", 6 + 3.5)}


def test_what_was_said_before_follows_the_start(tokenizer):
    head, options = tokenizer.prefix("en"), DecodingOptions(without_timestamps=True)
    before = [[1, 2, 3], []]
    start = starts(tokenizer, ["en", "en"], [[5, 6], []], options, context=448, rows=3, before=before)
    rows = [start.tokens_BP[b, start.pad_B[b] :].tolist() for b in range(2)]
    head = tokenizer.prefix("en", timestamps=False)
    assert rows == [[tokenizer.sot_prev, 5, 6, *head, 1, 2, 3], head]
    assert [start.tokens_BP[b, start.sot_B[b]] for b in range(2)] == [tokenizer.sot] * 2
    long = starts(tokenizer, ["en"], [list(range(300))], options, context=448, rows=1, before=[list(range(40))])
    assert len(long.tokens_BP[0]) <= 448 // 2 + len(head) and long.limit_B[0] == 448 // 2
    with pytest.raises(BadValue, match="230 tokens before a window's own"):
        starts(tokenizer, ["en"], None, options, context=448, rows=1, before=[[1] * 230])


@pytest.mark.parametrize(("width", "beam"), [(1, False), (3, True)])
def test_a_network_goes_on_as_if_it_had_said_so(width, beam):
    plan = SearchPlan(tiny.EOT, 6, beam=beam, width=width)
    states_BTD, begin = tiny.states(), tiny.start(range(4))
    whole = tiny.run(plan, begin, states_BTD)
    said = whole.tokens_BL[:, :2]
    further = begin._replace(tokens_BP=np.concatenate([begin.tokens_BP, said], axis=1))
    rest = tiny.run(plan, further, states_BTD)
    for b in range(4):
        if whole.lengths_B[b] > 2 and not beam:
            count = min(whole.lengths_B[b] - 2, 4)
            assert rest.tokens_BL[b, :count].tolist() == whole.tokens_BL[b, 2 : 2 + count].tolist()
    assert (rest.lengths_B > 0).any()


def test_the_first_timestamp_comes_after_the_phrases():
    logits_BV, tokens_BL = np.zeros((4, tiny.VOCAB), np.float32), np.full((4, 5), tiny.EOT)
    ruled = rules.Rules(eot=tiny.EOT, timestamps=tiny.TIMES, max_initial=2, earliest_B=np.asarray([0, 7], np.int32))
    allowed = np.isfinite(np.asarray(rules.apply(ruled, logits_BV, tokens_BL, 0)))
    want = [range(0, 3), range(0, 3), range(7, 10), range(7, 10)]  # two hypotheses of each row, side by side
    assert [np.flatnonzero(row).tolist() for row in allowed] == [[tiny.TIMES + i for i in row] for row in want]


def test_phrases_that_fit_are_taken_in_order():
    waves = [noise(seconds) for seconds in (9.0, 15.0, 9.0, 2.0)]
    assert fitting(waves, 4) == [0, 2, 3] and fitting(waves, 1) == [0]
    assert fitting([noise(25.0)], 3) == []


@pytest.mark.parametrize(
    ("seconds", "left"), [(10.0, 3), (18.0, 3), (18.1, 2), (22.0, 2), (25.0, 1), (26.5, 3), (90.0, 3)]
)
def test_a_recording_that_a_window_holds_is_not_cut_for_a_phrase_more(seconds, left):
    context = joined([noise(3.5), noise(3.5, 1), noise(3.5, 2)], ["one", "two", "three"])
    shown = context.leaving(seconds)
    assert (len(shown.spans), shown.texts) == (left, context.texts[:left])
    np.testing.assert_array_equal(shown.audio_S, joined([noise(3.5, n) for n in range(left)], shown.texts).audio_S)


def test_a_long_recording_keeps_half_of_every_window():
    context = joined([noise(3.5, n) for n in range(5)], ["one", "two", "three", "four", "five"])
    assert [len(context.leaving(seconds).spans) for seconds in (9.0, 10.1, 29.0, 300.0)] == [5, 4, 3, 3]


def test_phrases_of_too_many_tokens_are_fewer(tokenizer):
    context = joined([noise(2.0, n) for n in range(5)], ["one", "two", "three", "four", "five"])
    each = len(context.tokens(tokenizer, timed=True)) // 5
    for count in (5, 3, 1):
        assert context.within(count * each, tokenizer, True).texts == context.texts[:count]
    assert context.within(0, tokenizer, True).texts == ("one",)  # the search says that it has no room


@pytest.mark.parametrize("algorithm", [transcribe_sequential, transcribe_chunked])
def test_each_recording_has_the_phrases_that_leave_room_for_it(tokenizer, algorithm):
    context = joined([noise(5.5), noise(5.5, 1)], ["one", "two"])
    hearing, how = reading(tokenizer, [context] * 2, without_timestamps=True)
    more = () if algorithm is transcribe_sequential else (chunks,)
    waves = [noise(10.0, 5), noise(23.0, 6)]
    found = dict(algorithm(iter(waves), how, *more))
    assert [found[place].text.split() for place in (0, 1)] == [["three", "four"]] * 2
    assert sorted(size for _, _, size in hearing.asked) == [22 * RATE, 29 * RATE]


@pytest.mark.parametrize("algorithm", [transcribe_sequential, transcribe_chunked])
@pytest.mark.parametrize("words", [False, True])
def test_of_which_nothing_is_read_behind_phrases_is_read_without_them(tokenizer, algorithm, words):
    context = joined([noise(5.5)], ["one"])
    plain, how = reading(tokenizer, [context], words=words)
    hear = plain.search

    def search(encoded, prompts, options, before=None, earliest=None):
        found = hear(encoded, prompts, options, before, earliest)
        nothing = Decoding([tokenizer.timestamp_begin + 300], "", "en", -0.1, 0.0, 0.0, 1.0)
        return [nothing if ids else one for ids, one in zip(before or [None] * len(found), found, strict=True)]

    plain.search = search
    more = () if algorithm is transcribe_sequential else (chunks,)
    ((_, transcript),) = algorithm(iter([noise(10.0, 5)]), how, *more)
    alone, as_ever = reading(tokenizer, [None], words=words)
    ((_, want),) = algorithm(iter([noise(10.0, 5)]), as_ever, *more)
    assert transcript.text == want.text and transcript.text.split()
    assert [(one.start, one.end) for one in transcript.segments] == [(one.start, one.end) for one in want.segments]
    assert [bool(ids) for ids, _, _ in plain.asked] == [True, False] and len(alone.asked) == 1
    if words:
        assert [w.start for s in transcript.segments for w in s.words] == [
            w.start for s in want.segments for w in s.words
        ]
