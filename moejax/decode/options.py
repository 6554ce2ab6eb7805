"""What a caller may ask of decoding: one frozen record, names and defaults as in openai-whisper."""

import dataclasses

from moejax.decode import values
from moejax.errors import BadValue

LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # temperatures of the reference's `transcribe`
RANKINGS = ("openai", "transformers")


@dataclasses.dataclass(frozen=True)
class DecodingOptions:
    """How windows are decoded.

    Attributes:
      task: "transcribe" or "translate" (into English).
      language: code such as "en"; None detects it for every window.
      temperature: one temperature, or the ladder climbed by windows that fail the thresholds (`LADDER` in the
        reference's `transcribe`). At 0 the search is greedy or a beam, above it samples; `best_of` is not used at 0,
        `beam_size` and `patience` not above.
      sample_len: tokens at most per window, end token included; None: half the decoder's context.
      best_of: samples drawn at temperatures above 0, of which the likeliest stays; None: one.
      beam_size, patience: width of the beam search at temperature 0, None: greedy; how many times `beam_size` finished
        hypotheses end it (Kasai et al. 2022).
      length_penalty: alpha of Wu et al. 2016 between 0 and 1 in ranking hypotheses; None divides by the length.
      ranking: "openai" as above. "transformers" scores and stops a beam as `generate` does: sums divided by
        length ** length_penalty (None: 1; any sign), suppression after the softmax, see `early_stopping`; no patience.
      early_stopping: with "transformers": True, False or "never", as `generate` takes it.
      prompt: text or ids said before the window, for all windows; the argument `prompts` of `decode` goes first.
      prefix: text or ids that the window's own text begins with; of a recording, the first window's.
      suppress_tokens: ids never chosen, -1 stands for annotations and symbols (`tokenizer.non_speech`); a string of ids
        with commas will do; None or empty suppresses nothing, control tokens neither.
      suppress_blank: never begin with a blank or the end token.
      without_timestamps: text only.
      max_initial_timestamp: seconds; None: anywhere.
      hotwords: phrases whose tokens are made likelier where they continue one (and where one begins).
      hotword_bias: what is added to the logits of such tokens.
      compression_ratio_threshold, logprob_threshold, no_speech_threshold: the fallback rule; None switches one off.
      emotion: whether a model with tokens of emotions (stage `emotion`) says one before its text; None: where it can.

    Errors: ValueError for combinations that the reference refuses too.
    """

    task: str = "transcribe"
    language: str | None = None
    temperature: float | tuple[float, ...] = 0.0
    sample_len: int | None = None
    best_of: int | None = None
    beam_size: int | None = None
    patience: float | None = None
    length_penalty: float | None = None
    ranking: str = "openai"
    early_stopping: bool | str = False
    prompt: str | tuple[int, ...] | None = None
    prefix: str | tuple[int, ...] | None = None
    suppress_tokens: str | tuple[int, ...] | None = "-1"
    suppress_blank: bool = True
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0
    hotwords: tuple[str, ...] = ()
    hotword_bias: float = 2.0
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    emotion: bool | None = None

    def __post_init__(self):
        if self.task not in ("transcribe", "translate"):
            raise BadValue(f"task is {self.task!r}; known: transcribe, translate")
        if self.ranking not in RANKINGS:
            raise BadValue(f"ranking is {self.ranking!r}; known: {', '.join(RANKINGS)}")
        values.temperatures(self.temperature)
        for name in ("beam_size", "best_of", "sample_len"):
            values.count(name, getattr(self, name))
        for name in ("suppress_blank", "without_timestamps"):
            values.flag(name, getattr(self, name))
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"):
            values.limit(name, getattr(self, name))
        for name in ("prompt", "prefix"):
            values.text_or_ids(name, getattr(self, name))
        values.text("language", self.language)
        if self.emotion is not None:
            values.flag("emotion", self.emotion)
        values.number("patience", self.patience)
        values.number("length_penalty", self.length_penalty)
        values.number("max_initial_timestamp", self.max_initial_timestamp, least=0)
        values.number("hotword_bias", self.hotword_bias, unset=False)
        values.ids("suppress_tokens", self.suppress_tokens)
        if self.patience is not None:
            if self.beam_size is None:
                raise BadValue("patience requires beam_size")
            if round(self.beam_size * self.patience) < 1:
                raise BadValue(f"patience {self.patience} of beam_size {self.beam_size} leaves no hypothesis")
        if self.ranking == "openai" and self.length_penalty is not None and not 0 <= self.length_penalty <= 1:
            raise BadValue(f"length_penalty is {self.length_penalty}, must be between 0 and 1")
        if self.early_stopping not in (True, False, "never"):
            raise BadValue(f"early_stopping is {self.early_stopping!r}; known: True, False, 'never'")
        if isinstance(self.hotwords, str):
            raise BadValue(f"hotwords is the one string {self.hotwords!r}; give a tuple of phrases")
        if not all(isinstance(word, str) for word in self.hotwords):
            raise BadValue(f"hotwords is {self.hotwords!r}; give a tuple of phrases")

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The ladder, one rung or several."""
        return self.temperature if isinstance(self.temperature, tuple) else (float(self.temperature),)

    def banned(self, tokenizer) -> tuple[int, ...]:
        """Ids that are never chosen, in this vocabulary."""
        asked = values.ids("suppress_tokens", self.suppress_tokens)
        emotions = tuple(tokenizer.emotions.values())  # they stand before a text, never in it
        if not asked:
            return emotions
        control = [id for id in tokenizer.suppress if id >= tokenizer.eot]
        symbols = tokenizer.non_speech if -1 in asked else ()
        return tuple(sorted({*(id for id in asked if id >= 0), *symbols, *control, *emotions}))
