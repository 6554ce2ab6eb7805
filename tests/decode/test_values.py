"""Options of a wrong kind: one line that names option, value and rule, and nothing of Python's own."""

import numpy as np
import pytest

from moejax.decode.longform import LongformOptions
from moejax.decode.options import DecodingOptions
from moejax.decode.request import request
from moejax.errors import BadValue

NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"temperature": None}, "temperature is None; give one or several numbers from 0 on"),
        ({"temperature": NAN}, "temperature is nan; give one or several numbers from 0 on"),
        ({"temperature": (0.0, "a")}, "temperature is (0.0, 'a'); give one or several numbers from 0 on"),
        ({"temperature": tuple(np.arange(0, 1, 1e-3))}, "temperature has 1000 rungs, .*; at most 100"),
        ({"suppress_tokens": "a"}, "suppress_tokens is 'a'; give token ids with commas, such as 50,257, or -1"),
        ({"suppress_tokens": (1.5,)}, "suppress_tokens is (1.5,); give token ids with commas"),
        ({"suppress_blank": "True"}, "suppress_blank is 'True', must be True or False"),
        ({"without_timestamps": 1}, "without_timestamps is 1, must be True or False"),
        ({"beam_size": 2.5}, "beam_size is 2.5, must be a whole number of at least 1 or None"),
        ({"best_of": True}, "best_of is True, must be a whole number of at least 1 or None"),
        ({"logprob_threshold": "-1"}, "logprob_threshold is '-1', must be a number or None"),
        ({"no_speech_threshold": NAN}, "no_speech_threshold is nan, must be a number or None"),
        ({"max_initial_timestamp": -1}, "max_initial_timestamp is -1, must be a number from 0 on or None"),
        ({"hotword_bias": None}, "hotword_bias is None, must be a number"),
        ({"hotwords": (3,)}, "hotwords is (3,); give a tuple of phrases"),
        ({"prefix": 3}, "prefix is 3, must be text or token ids or None"),
        ({"language": 7}, "language is 7, must be text or None"),
    ],
    ids=str,
)
def test_decoding(options, line):
    with pytest.raises(BadValue) as raised:
        DecodingOptions(**options)
    _says(raised, line)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"word_timestamps": "True"}, "word_timestamps is 'True', must be True or False"),
        ({"condition_on_previous_text": None}, "condition_on_previous_text is None, must be True or False"),
        ({"initial_prompt": 3}, "initial_prompt is 3, must be text or None"),
        (
            {"hallucination_silence_threshold": NAN},
            "hallucination_silence_threshold is nan, must be a number from 0 on",
        ),
    ],
    ids=str,
)
def test_long_recordings(options, line):
    with pytest.raises(BadValue) as raised:
        LongformOptions(**options)
    _says(raised, line)


def _says(raised, line):
    message = str(raised.value)
    assert "\n" not in message and all(part in message for part in line.split(".*")), message


def test_what_is_right_is_taken():
    DecodingOptions(temperature=np.float32(0.2), beam_size=np.int64(3), logprob_threshold=float("-inf"))
    DecodingOptions(suppress_tokens=" -1, 50 ", prompt=(1, 2), prefix="a", temperature=1)
    LongformOptions(clip_timestamps=np.array([1.0, 2.0]).tolist(), word_timestamps=np.bool_(True))


@pytest.mark.parametrize("timed", [True, False])
def test_pieces_refuse_what_only_windows_in_a_row_can_do(timed):
    common = {"timed": timed, "can_time": True, "language": "en", "context": 448}
    for name, value in (("condition_on_previous_text", True), ("hallucination_silence_threshold", 2.0)):
        with pytest.raises(BadValue, match=f"{name}.* needs the sequential algorithm"):
            request({"algorithm": "chunked", name: value, "word_timestamps": True}, **common)
    request({"algorithm": "chunked", "condition_on_previous_text": False, "clip_timestamps": "1,2"}, **common)
    asked = request({"algorithm": "chunked", "no_speech_threshold": 0.4}, **common)
    assert asked.longform.guards.no_speech == 0.4  # of short windows, too, whose guards are off by themselves
