"""What decoding one window gives: the common coin of search, fallback, long audio and the recogniser."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Decoding:
    """One window's result. `tokens` exclude the prefix and the end token and include timestamp tokens.

    `avg_logprob` is the sum over the tokens and the end token divided by their number, `no_speech_prob` the probability
    of the no-speech token after the start token, `compression_ratio` that of zlib on the text: the three figures of
    the reference implementation's fallback rule. `route` holds the experts' weights, None without a mixture. `ended`:
    the end token came before the limit. `steady`: it repeats itself, and so did every rung of the ladder, each of them
    likely (`fallback.climb`). `emotion`: {name: probability} of a model with tokens of emotions.
    """

    tokens: list[int]
    text: str
    language: str
    avg_logprob: float
    no_speech_prob: float
    temperature: float
    compression_ratio: float
    route: list[float] | None = None
    ended: bool = True
    steady: bool = False
    emotion: dict[str, float] | None = None
