"""Speech whose borders espeak-ng tells."""

import numpy as np
import pytest

from moejax.errors import BadValue
from moejax.speech import espeak
from moejax.speech.timed import MANDARIN, TimedVoicebox

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def voicebox():
    with TimedVoicebox() as open_one:
        yield open_one


def test_words_and_phones_have_their_times(voicebox):
    (one,) = voicebox.timed([{"text": "hello world, this is it"}], "en-us")
    assert [word for word, _, _ in one.words] == ["hello", "world", "this", "is", "it"]
    seconds = len(one.samples_S) / espeak.RATE
    times = [time for _, start, end in one.words for time in (start, end)]
    assert times == sorted(times) and 0 <= times[0] and times[-1] <= seconds
    assert one.words[2][1] - one.words[1][2] > 0.1  # the pause at the comma belongs to nobody
    assert [name for name, _, _ in one.phones[:4]] == ["h", "ə", "l", "ˈoʊ"]
    # They are where the sound is: the pause is silent, words are not
    level = lambda a, b: np.abs(one.samples_S[int(a * espeak.RATE) : int(b * espeak.RATE)]).mean()  # noqa: E731
    assert level(one.words[1][2] + 0.03, one.words[2][1] - 0.03) < 0.05 * level(*one.words[1][1:])


def test_a_word_with_an_apostrophe_is_one(voicebox):
    (one,) = voicebox.timed([{"text": "don't ask o'clock's well-known 'twas"}], "en-us")
    assert [word for word, _, _ in one.words][:2] == ["don't", "ask"] and len(one.words) >= 5


def test_the_same_samples_whatever_came_before(voicebox):
    first, _, again = voicebox.timed([{"text": "one"}, {"text": "another"}, {"text": "one"}], "en-us")
    assert np.array_equal(first.samples_S, again.samples_S) and first.words == again.words


def test_mandarin_is_read_from_pinyin(voicebox):
    (one,) = voicebox.timed([{"text": "ni3 hao3 zhong1 guo2"}], MANDARIN)
    assert [word for word, _, _ in one.words] == ["ni3", "hao3", "zhong1", "guo2"]
    assert not any("(en)" in name for name, _, _ in one.phones)
    with pytest.raises(BadValue, match="espeak-ng has no voice"):
        next(voicebox.timed([{"text": "x"}], "no-such-voice"))
