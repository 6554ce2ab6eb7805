import dataclasses

import pytest

from moejax.decode import fallback
from moejax.decode.options import LADDER, DecodingOptions
from moejax.decode.results import Decoding

GOOD = Decoding([1], "a cat sat on a mat", "en", -0.3, 0.1, 0.0, 1.1)
OPTIONS = DecodingOptions(temperature=LADDER)


@pytest.mark.parametrize(
    "changes,options,want",
    [
        ({}, {}, False),
        ({"avg_logprob": -1.1}, {}, True),
        ({"avg_logprob": -1.0}, {}, False),  # at the threshold is not below it
        ({"compression_ratio": 2.5}, {}, True),
        ({"compression_ratio": 2.4}, {}, False),
        ({"avg_logprob": -1.1, "no_speech_prob": 0.7}, {}, False),  # silence: nothing better will come
        ({"compression_ratio": 2.5, "no_speech_prob": 0.7}, {}, True),  # likely enough, so not silence
        ({"compression_ratio": 2.5, "avg_logprob": -1.1, "no_speech_prob": 0.7}, {}, False),
        ({"avg_logprob": -9.0}, {"logprob_threshold": None}, False),
        ({"compression_ratio": 9.0}, {"compression_ratio_threshold": None}, False),
        ({"avg_logprob": -1.1, "no_speech_prob": 0.7}, {"no_speech_threshold": None}, True),
    ],
)
def test_what_counts_as_failed(changes, options, want):
    assert fallback.failed(dataclasses.replace(GOOD, **changes), dataclasses.replace(OPTIONS, **options)) is want


def test_only_rows_that_failed_climb_on():
    calls = []

    def decode(temperature, wanted):
        calls.append((temperature, list(wanted)))
        enough = [0.0, 0.4, 2.0]  # the temperature at which each row comes good
        return [
            dataclasses.replace(GOOD, temperature=temperature, avg_logprob=-0.5 if temperature >= t else -2.0)
            for t in enough
        ]

    found = fallback.climb(decode, 3, OPTIONS)
    assert [one.temperature for one in found] == [0.0, 0.4, 1.0]  # the last keeps its last try
    assert [t for t, _ in calls] == list(LADDER)
    assert [w for _, w in calls] == [[True] * 3, *[[False, True, True]] * 2, *[[False, False, True]] * 3]


def test_compression_ratio():
    assert fallback.compression_ratio("") == 0
    assert fallback.compression_ratio("ha " * 200) > 20
    assert fallback.compression_ratio("the quick brown fox") < 1


@pytest.mark.parametrize(
    "options,message",
    [
        ({"task": "sing"}, "task.*transcribe, translate"),
        ({"patience": 2.0}, "patience requires beam_size"),
        ({"beam_size": 0}, "beam_size is 0"),
        ({"beam_size": 1, "patience": 0.1}, "no hypothesis"),
        ({"length_penalty": 2.0}, "between 0 and 1"),
        ({"temperature": ()}, "temperature"),
        ({"temperature": (0.0, -0.2)}, "temperature"),
        ({"ranking": "hf"}, "openai, transformers"),
        ({"early_stopping": "often"}, "never"),
        ({"hotwords": "moejax"}, "tuple of phrases"),
        ({"sample_len": 0}, "sample_len is 0"),
        ({"best_of": 0}, "best_of is 0"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DecodingOptions(**options)
