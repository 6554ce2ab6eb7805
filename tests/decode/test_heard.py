"""What of a recording is heard: pieces to their end, clips, the language of what is heard, the words it begins with."""

import numpy as np
import pytest
from test_longform import CONFIG, ENGLISH, OFF, Scripted, chunked, cut_every, ramp, said, sequential, spans, tokenizer  # noqa: F401, I001
from tiny_decoder import EOT, ROWS, run, start, states

from moejax.decode import clips
from moejax.decode.longform import LongformOptions, Reading, transcribe_sequential
from moejax.decode.options import DecodingOptions
from moejax.decode.pieces import transcribe_pieces  # noqa: F401
from moejax.decode.prefix import Start, forced
from moejax.decode.rules import Rules, make
from moejax.decode.search import SearchPlan
from moejax.errors import BadValue


def test_a_piece_is_heard_to_its_end_whatever_its_last_pair_says(tokenizer):  # noqa: F811
    """A word each 5 s; a window says two of them and ends at a pair, as tiny.en did at 25.64 of 30 s."""
    words = "one two three four five six seven eight".split()

    def say(second, prompt, seconds):
        at = [t for t in range(0, 40, 5) if second <= t < second + seconds][:2]
        parts = [part for t in at for part in (t - second, words[t // 5], t - second + 1)]
        last = [at[1] - second + 5] if len(at) > 1 and at[1] + 5 < second + seconds else []
        return said(tokenizer, *parts, *(last and [parts[-1]]))

    model = Scripted(tokenizer, say)
    (found,) = chunked([ramp(40)], model, cut=cut_every(20), options=LongformOptions(guards=OFF))
    assert found.text.split() == words
    starts = [segment.start for segment in found.segments]
    assert starts == sorted(starts) and len(model.seen) < 8


def test_a_pair_that_leads_nowhere_loses_no_text(tokenizer):  # noqa: F811
    model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, 0.0, 0.0, "one"))
    (found,) = chunked([ramp(12)], model, cut=cut_every(12), options=LongformOptions(guards=OFF))
    assert found.text.split() == ["one"] and len(model.seen) == 1


@pytest.mark.parametrize(
    ("times", "rule"),
    [
        ("0,0", "clip_timestamps has the clip 0,0, which does not last"),
        ("5,3", "clip_timestamps has the clip 5,3, which does not last"),
        ("-1,2", "clip_timestamps begins before the recording, at -1 s"),
        ("3,4,1,2", "clip_timestamps has 1 after 4"),
        ("0,a", "clip_timestamps is '0,a', not numbers"),
        ("nan", "clip_timestamps is 'nan', not finite"),
        ((1.0, None), "clip_timestamps is '1.0,None', not numbers"),
    ],
)
def test_clips_that_cannot_be_meant_are_refused(times, rule):
    with pytest.raises(BadValue, match=rule):
        LongformOptions(clip_timestamps=times)


def test_clips_of_a_recording():
    assert clips.within(clips.parsed(""), 700, 100) == [(0, 700)] == clips.within(clips.parsed("0"), 700, 100)
    assert clips.within(clips.parsed("1,2,5"), 700, 100) == [(100, 200), (500, 700)]
    assert clips.within(clips.parsed((1, 9)), 700, 100) == [(100, 700)]
    assert clips.within(clips.parsed("3"), 0, 100) == [(0, 0)]
    with pytest.raises(BadValue, match=r"a clip from 20 s on; the recording ends at 7\.00 s"):
        clips.within(clips.parsed("20,30"), 700, 100)


@pytest.mark.parametrize(
    "read",
    [
        sequential,
        lambda audios, model, **o: chunked(audios, model, cut_every(30), options=LongformOptions(guards=OFF, **o)),
    ],
)
def test_only_clips_are_heard_and_no_segment_leaves_them(tokenizer, read):  # noqa: F811
    model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, 0.0, "one", 25.0))
    (found,) = read([ramp(20)], model, clip_timestamps="2,5,8,10")
    # In one batch the shorter window may come first
    assert sorted((round(at), round(seconds)) for at, seconds, *_ in model.seen) == [(2, 3), (8, 2)]
    assert spans(found) == [(" one", 2.0, 5.0), (" one", 8.0, 10.0)]


def test_the_language_is_that_of_the_first_window_in_which_something_is_heard(tokenizer):  # noqa: F811
    """30 s of silence, 30 s in which nothing is said, then German; the detector takes all before it for English."""
    model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, "one") if second >= 60 else [])
    model.detect = lambda encoded: [{"en": 0.9, "de": 0.1} for _ in encoded.windows]
    audio_S = ramp(90)
    audio_S[: 30 * 16000] = 0.0
    reading = Reading(model=model, tokenizer=tokenizer, config=CONFIG)
    ((_, found),) = transcribe_sequential([audio_S], reading)
    assert found.language == "de" and found.text.split() == ["one"] and found.dropped == {"energy": 1}
    assert [segment.language for segment in found.segments if segment.text] == ["de"]
    assert [language for *_, language in model.seen] == [None, None]


@pytest.mark.parametrize("read", [sequential, lambda audios, model: chunked(audios, model, cut_every(30))])
def test_a_recording_of_nothing_is_named(tokenizer, read):  # noqa: F811
    (found,) = read([np.zeros(0, np.float32)], Scripted(tokenizer, None))
    assert (found.text, found.dropped) == ("", {"silent": 1})


@pytest.mark.parametrize("beam", [False, True])
def test_a_prefix_is_what_would_have_been_read_before_and_stands_in_the_text(beam):
    """As `DecodingOptions.prefix` of the reference, whose tokens follow the start sequence."""
    plan = SearchPlan(eot=EOT, max_tokens=9, beam=beam, width=3 if beam else 1)
    begin, states_BTD = start(range(ROWS)), states()
    rules = Rules(eot=EOT, forced_N=np.asarray([5, 6] + [-1] * 14, np.int32))
    found = run(plan, begin, states_BTD, rules=rules)
    said_BP = np.concatenate([begin.tokens_BP, np.tile([5, 6], (ROWS, 1))], axis=1).astype(np.int32)
    longer = Start(said_BP, begin.pad_B, begin.sot_B, begin.limit_B - 2)
    wanted = run(plan, longer, states_BTD)
    assert (found.tokens_BL[:, :2] == [5, 6]).all()
    np.testing.assert_array_equal(found.tokens_BL[:, 2:], wanted.tokens_BL[:, :7])
    np.testing.assert_allclose(found.sum_logprob_B, wanted.sum_logprob_B, atol=1e-4)


def test_a_prefix_begins_the_recording_once_and_with_its_time(tokenizer):  # noqa: F811
    asked = []
    model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, "one"))
    real = model.search
    model.search = lambda encoded, prompts, options: asked.append(options.prefix) or real(encoded, prompts, options)
    decoding = DecodingOptions(language="en", prefix="two")
    reading = Reading(model=model, tokenizer=tokenizer, config=CONFIG, decoding=decoding)
    list(transcribe_sequential([ramp(70)], reading))
    assert asked == ["two", None, None]
    ids = tokenizer.encode("two")
    assert forced(tokenizer, decoding, 448) == [tokenizer.timestamp_begin, *ids]
    assert forced(tokenizer, DecodingOptions(prefix="two", without_timestamps=True), 448) == ids
    assert forced(tokenizer, ENGLISH, 448) == []


def test_lists_of_other_sizes_do_not_compile_anew(tokenizer):  # noqa: F811
    import types

    config = types.SimpleNamespace(vocab_size=tokenizer.vocab_size + 1600, max_target_positions=448)
    rules = [
        make(tokenizer, DecodingOptions(hotwords=words, suppress_tokens=ids, prefix=prefix), config)
        for words, ids, prefix in ((("one",), "1", "one"), (("two six", "eight", "one"), "1,2,3", "two three"))
    ]
    shapes = [(x.hotwords_NL.shape, x.banned_V.shape, x.forced_N.shape) for x in rules]
    assert shapes[0] == shapes[1] == ((16, 8), rules[0].banned_V.shape, (16,))
