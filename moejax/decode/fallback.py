"""When a decoding has failed and is tried again at a higher temperature: the reference's rule, on the host."""

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
    unlikely = options.logprob_threshold is not None and found.avg_logprob < options.logprob_threshold
    ratio = options.compression_ratio_threshold
    repetitive = ratio is not None and found.compression_ratio > ratio
    quiet = options.no_speech_threshold is not None and found.no_speech_prob > options.no_speech_threshold
    return (repetitive or unlikely) and not (quiet and unlikely)


def climb(decode, rows: int, options: DecodingOptions) -> list[Decoding]:
    """The ladder over the rows of one batch.

    `decode(temperature, wanted)` decodes the rows whose entry in the list of booleans `wanted` is true, all in one
    fixed shape, and gives a list with their `Decoding`s at their places. A row that fails on every rung keeps the last
    rung's result, as in the reference.
    """
    results: dict[int, Decoding] = {}
    wanted = [True] * rows
    for temperature in options.temperatures:
        tried = decode(temperature, wanted)
        for row in range(rows):
            if wanted[row]:
                results[row] = tried[row]
                wanted[row] = failed(tried[row], options)
        if not any(wanted):
            break
    return [results[row] for row in range(rows)]
