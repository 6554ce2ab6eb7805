"""Repetition in the sound told from a loop of the decoder.

People who stutter, count, sing or speak with palilalia say the same thing over and over; and a decoder that has lost
the sound does so too. Two things tell them apart, both by the network itself. What is in the sound is found again by
sampling: where every rung of the temperature ladder is likely, somebody speaks (`fallback.climb`; over noise a loop is
left as soon as a token is drawn, and what follows is unlikely). And in the sound each word has its time: words of a
loop have none, since the attention that finds times (`alignment`) no longer moves. So a repetition is kept, and
cut where it runs on without sound.
"""

import dataclasses

from moejax.audio.constants import TIMESTAMP_STEP
from moejax.decode.alignment import Asked
from moejax.decode.fallback import compression_ratio
from moejax.decode.results import Decoding
from moejax.decode.words import Timing

STILL = 0.1  # seconds: words shorter than this did not move on; "one two three" as fast as can be has 0.15 a word
REST = 1.0  # seconds after the last word that are worth another window


def sounded(found: Decoding, frames: int, tokenizer, seconds: float):
    """A generator of at most one question: the decoding of a window of `frames`, `seconds` long, without the words of
    a repetition that have no sound.
    """
    tokens = [token for token in found.tokens if token < tokenizer.eot]
    if not found.steady or not tokens:
        return found
    words = yield Asked(tokens, found.language, frames)
    return cut_loop(found, words, tokenizer, seconds)


def moving(words: list[Timing]) -> int:
    """How many of the words, from the first on, have sound: up to where more of them move on than stand still.

    Some of a true repetition's words have no time of their own, where the path through the attention took a repeat at
    once; so it is their balance that counts.
    """
    best, balance, count = 0, 0, 0
    for i, word in enumerate(words, 1):
        balance += 1 if word.end - word.start >= STILL else -1
        if balance >= best:
            best, count = balance, i
    return count


def cut_loop(found: Decoding, words: list[Timing], tokenizer, seconds: float) -> Decoding:
    """The decoding up to the last word that has sound; where more than `REST` seconds follow, a pair of timestamps lets
    the next window begin there.
    """
    count = moving(words)
    keep = sum(len(word.tokens) for word in words[:count])
    if keep >= sum(token < tokenizer.eot for token in found.tokens):
        return found
    tokens, left = [], keep
    for token in found.tokens:
        if token < tokenizer.eot:
            left -= 1
        if left < 0:
            break
        tokens.append(token)
    begin = tokenizer.timestamp_begin
    if tokens and tokens[0] >= begin:
        while tokens and tokens[-1] >= begin:
            tokens.pop()
        end = words[count - 1].end if count else 0.0
        least = max((token - begin for token in tokens if token >= begin), default=0)
        last = begin + max(round(end / TIMESTAMP_STEP), least)
        tokens += [last, last] if seconds - end > REST and tokens else [last]
    text = tokenizer.decode(tokens)
    return dataclasses.replace(found, tokens=tokens, text=text, compression_ratio=compression_ratio(text))
