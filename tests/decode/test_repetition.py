"""Repetition in the sound is written; a loop of the decoder is not, and what is withheld has its name."""

import dataclasses

import numpy as np
import pytest
from test_longform import CONFIG, Scripted, ramp, said, tokenizer  # noqa: F401 - a fixture

from moejax.decode import fallback
from moejax.decode.chunked import transcribe_chunked
from moejax.decode.guards import Guards
from moejax.decode.longform import Reading, transcribe_sequential
from moejax.decode.options import LADDER, DecodingOptions
from moejax.decode.repetition import cut_loop, moving
from moejax.decode.results import Decoding
from moejax.decode.words import Timing

OPTIONS = DecodingOptions(temperature=LADDER)
REPEATED = Decoding([1], "one two three " * 9, "en", -0.3, 0.1, 0.0, 4.2)


def climbed(**by_temperature):
    """What is kept of one row; `t6={...}` changes the rung at 0.6."""

    def decode(temperature, wanted):
        changes = by_temperature.get(f"t{round(10 * temperature)}", {})
        return [dataclasses.replace(REPEATED, temperature=temperature, **changes)]

    return fallback.climb(decode, 1, OPTIONS)[0]


def test_what_is_likely_at_every_temperature_is_in_the_sound():
    assert (climbed().temperature, climbed().steady) == (0.0, True)
    # At 1.0 anything may be drawn, such as half of the repeats: what it gives does not count.
    half = climbed(t10={"compression_ratio": 1.7, "avg_logprob": -0.7})
    assert (half.temperature, half.steady) == (0.0, True)
    assert climbed(t0={"ended": False}, t2={"ended": False}).temperature == 0.4  # the coolest that came to an end


@pytest.mark.parametrize("rung", ["t0", "t4", "t6", "t8"])
def test_a_loop_over_noise_is_not(rung):
    found = climbed(**{rung: {"avg_logprob": -1.9}})
    assert (found.temperature, found.steady) == (1.0, False) and Guards().after(found, 20.0) == "compression"


def test_a_rung_that_comes_good_is_kept_as_in_the_reference():
    found = climbed(t6={"compression_ratio": 1.5})
    assert (found.temperature, found.steady) == (0.6, False)


def test_without_a_drawn_rung_nothing_is_known():
    def decode(temperature, wanted):
        return [dataclasses.replace(REPEATED, temperature=temperature)]

    for ladder in ((0.0,), (0.0, 0.2, 0.4), (0.0, 1.0)):
        found = fallback.climb(decode, 1, DecodingOptions(temperature=ladder))[0]
        assert (found.temperature, found.steady) == (ladder[-1], False)


def timed(*lengths):
    ends = np.cumsum(lengths)
    return [Timing(" x", [5], float(end - length), float(end), 0.9) for end, length in zip(ends, lengths, strict=True)]


def test_words_have_sound_as_long_as_more_of_them_move_than_stand():
    assert moving(timed(*[0.5] * 8)) == 8
    assert moving(timed(*[0.5] * 8, *[0.0] * 200)) == 8
    assert moving(timed(*[0.5] * 8, *[0.0] * 3, *[0.5] * 8)) == 19  # the path took one repeat at once
    assert moving([]) == 0 and moving(timed(*[0.0] * 9)) == 0


def test_a_loop_is_cut_where_its_sound_ends(tokenizer):  # noqa: F811
    tokens = said(tokenizer, 0.0, "one " * 12)
    text = [token for token in tokens if token < tokenizer.eot]
    found = Decoding(tokens, "one " * 12, "en", -0.3, 0.0, 0.0, 9.0, steady=True)
    words = [Timing(" one", [id], 0.5 * min(i, 4), 0.5 * min(i + 1, 4), 0.9) for i, id in enumerate(text)]
    last = tokenizer.timestamp_begin + 100
    assert cut_loop(found, words, tokenizer, 2.5).tokens == [tokens[0], *text[:4], last]
    assert cut_loop(found, words, tokenizer, 9.0).tokens == [tokens[0], *text[:4], last, last]  # more is to be heard
    whole = [Timing(" one", [id], 0.5 * i, 0.5 * (i + 1), 0.9) for i, id in enumerate(text)]
    assert cut_loop(found, whole, tokenizer, 9.0) is found


@pytest.mark.parametrize("chunked", [False, True])
def test_recordings_keep_what_is_in_the_sound(tokenizer, chunked):  # noqa: F811
    """12 words are claimed of a window; the aligner of `Scripted` gives half a second to each of the first 8."""

    def read(**numbers):
        model = Scripted(tokenizer, lambda second, prompt, seconds: said(tokenizer, 0.0, "one " * 12, 6.0), **numbers)
        real = model.align

        def align(encoded, asked):
            return [
                [word if i < 8 else dataclasses.replace(word, start=4.0, end=4.0) for i, word in enumerate(words)]
                for words in real(encoded, asked)
            ]

        decoding = DecodingOptions(language="en")
        reading = Reading(model=model, tokenizer=tokenizer, config=CONFIG, decoding=decoding, align=align)
        if chunked:
            ((_, found),) = transcribe_chunked([ramp(4.5)], reading, lambda audio_S, most: [(0, len(audio_S))])
        else:
            ((_, found),) = transcribe_sequential([ramp(4.5)], reading)
        return found

    kept = read(compression_ratio=5.0, steady=True)
    assert kept.text.split() == ["one"] * 8 and not kept.dropped
    loop = read(compression_ratio=5.0)
    assert not loop.text and loop.dropped == {"compression": 1}
