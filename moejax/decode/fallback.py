"""When a decoding has failed and is tried again at a higher temperature: the reference's rule, on the host."""

import dataclasses
import zlib

from moejax.decode.options import DecodingOptions
from moejax.decode.results import Decoding


def compression_ratio(text: str) -> float:
    """Bytes of the UTF-8 text over bytes after zlib: above 2.4 the text says the same thing over and over."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))


def failed(found: Decoding, options: DecodingOptions) -> bool:
    """Whether this window should be decoded again at the next temperature.

    Too repetitive or too unlikely, unless it is both unlikely and taken for silence (the reference's
    `decode_with_fallback`).
    """
    unlikely, ratio = _unlikely(found, options), options.compression_ratio_threshold
    repetitive = ratio is not None and found.compression_ratio > ratio
    quiet = options.no_speech_threshold is not None and found.no_speech_prob > options.no_speech_threshold
    return (repetitive or unlikely) and not (quiet and unlikely)


def climb(decode, rows: int, options: DecodingOptions) -> list[Decoding]:
    """The ladder over the rows of one batch.

    `decode(temperature, wanted)` decodes the rows whose entry in the list of booleans `wanted` is true and gives a list
    with their `Decoding`s at their places. Of a row that fails on every rung the last
    rung's result is kept, as in the reference; of a repetition that is in the sound an earlier one (`_steady`).
    """
    tried: list[list[Decoding]] = [[] for _ in range(rows)]
    wanted = [True] * rows
    for temperature in options.temperatures:
        found = decode(temperature, wanted)
        for row in range(rows):
            if wanted[row]:
                tried[row].append(found[row])
                wanted[row] = failed(found[row], options)
        if not any(wanted):
            break
    return [_steady(rungs, options) or rungs[-1] for rungs in tried]


def _steady(rungs: list[Decoding], options: DecodingOptions) -> Decoding | None:
    """What is kept of a ladder whose every rung below 1.0 failed because the text repeats itself; None for a loop.

    Where somebody does say the same thing over and over, texts that are drawn are likely as well; a loop over noise
    is likely to itself only, and what is drawn off its track has mean log-probabilities of -2 and less (measured on
    ESC-10 with tiny.en). At 1.0 anything may be drawn, such as half of the repeats, which then no longer look
    repetitive. The coolest text that came to its end is kept.
    """
    drawn = [found for found in rungs if found.temperature < 1.0]
    if options.logprob_threshold is None or not any(found.temperature > 0.5 for found in drawn):
        return None
    if any(_unlikely(found, options) or not failed(found, options) for found in drawn):
        return None
    return dataclasses.replace(next((found for found in drawn if found.ended), drawn[0]), steady=True)


def _unlikely(found, options):
    return options.logprob_threshold is not None and found.avg_logprob < options.logprob_threshold
