"""What recognition gives back: words, segments, the transcript of one recording.

Field names and meanings follow openai-whisper's result dictionaries, so that its writers' formats and its users' habits
carry over; `route` is moejax's own.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Word:
    """One word with its leading space as the tokenizer wrote it; times in seconds from the start of the recording.

    `speaker` where a diarizer was asked (`diarize.said`), `overlapped` where it hears somebody else during the word.
    """

    start: float
    end: float
    word: str
    probability: float
    speaker: str | None = None
    overlapped: bool = False


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of audio and its text; times in seconds.

    `seek` is the position of the decoding window in mel frames of 10 ms; `avg_logprob`, `compression_ratio` and
    `no_speech_prob` belong to that window; `words` only where word times were asked for; `route` holds the experts'
    weights, None without a mixture; `language` is the one that its window was decoded in; `emotion` {name: probability}
    of that window, where the model has tokens of emotions.
    """

    start: float
    end: float
    text: str
    route: list[float] | None = None
    id: int = 0
    seek: int = 0
    tokens: list[int] = dataclasses.field(default_factory=list)
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    words: list[Word] | None = None
    language: str | None = None
    speaker: str | None = None  # of all its words
    emotion: dict[str, float] | None = None


@dataclasses.dataclass(frozen=True)
class Transcript:
    """Text of one recording. `route` holds the experts' weights (mean over segments), None without a mixture; so does
    `emotion` {name: probability}, None of a model that knows none.

    `dropped` counts windows whose text was withheld by a guard, by the guard's name.
    """

    text: str
    segments: list[Segment]
    language: str
    route: list[float] | None = None
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    emotion: dict[str, float] | None = None
