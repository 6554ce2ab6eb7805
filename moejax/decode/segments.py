"""Segments in the making: a window's tokens cut at its timestamps."""

import dataclasses

from moejax.audio.constants import SAMPLE_RATE, TIMESTAMP_STEP
from moejax.decode.results import Decoding
from moejax.text.transcript import Segment, Word


@dataclasses.dataclass
class Draft:
    """A segment whose times and words may still move. Times in seconds of the recording, `seek` in its mel frames."""

    seek: int
    start: float
    end: float
    tokens: list[int]
    text: str
    found: Decoding
    words: list["DraftWord"] | None = None

    def finished(self, id: int, hop: int) -> Segment:
        """The segment as it is handed out."""
        found = self.found
        return Segment(
            start=self.start,
            end=self.end,
            text=self.text,
            route=found.route,
            id=id,
            seek=round(self.seek * hop * 100 / SAMPLE_RATE),
            tokens=self.tokens,
            temperature=found.temperature,
            avg_logprob=found.avg_logprob,
            compression_ratio=found.compression_ratio,
            no_speech_prob=found.no_speech_prob,
            language=found.language,
            emotion=found.emotion,
            words=None if self.words is None else [Word(w.start, w.end, w.word, w.probability) for w in self.words],
        )

    def clear_if_empty(self):
        """An instantaneous segment, or one without text, keeps its place and loses its content, as in the reference."""
        if self.start == self.end or not self.text.strip():
            self.text, self.tokens = "", []
            self.words = None if self.words is None else []

    def move(self, start: float, end: float):
        """To new times; words that lie outside them move to the nearer end."""
        self.start, self.end = start, end
        for word in self.words or ():
            word.start, word.end = (min(max(time, start), end) for time in (word.start, word.end))

    def join(self, other: "Draft", end: float):
        """Takes in the content of the next segment, and lasts until `end`."""
        self.tokens, self.text = self.tokens + other.tokens, self.text + other.text
        self.words = None if self.words is None else self.words + (other.words or [])
        self.move(self.start, max(self.end, end))


@dataclasses.dataclass
class DraftWord:
    """A word whose times may still move; seconds of the recording. `tokens` are its ids."""

    word: str
    start: float
    end: float
    probability: float
    tokens: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Cut:
    """A window's segments; `ends_silent`: a lone timestamp ends it, so nothing is said after it; `consumed` seconds up
    to the last finished segment, None where the whole window is consumed.
    """

    drafts: list[Draft]
    ends_silent: bool
    consumed: float | None


def cut_at_timestamps(found: Decoding, tokenizer, *, seek: int, offset: float, seconds: float, keep_tail=False) -> Cut:
    """Segments between pairs of timestamps, as in the reference's `transcribe`.

    `offset` is where the window begins and `seconds` how long it is. After the last pair the window may hold the
    beginning of a segment: left out, to be heard again in the next window, or kept up to the window's end with
    `keep_tail`, for windows that nobody returns to. Without a pair the whole window is one segment, which ends at its
    last timestamp if there is one.
    """
    tokens, begin = list(found.tokens), tokenizer.timestamp_begin
    is_time = [token >= begin for token in tokens]
    ends_silent = is_time[-2:] == [False, True]

    def draft(start, end, part):
        text = tokenizer.decode([token for token in part if token < tokenizer.eot], strip=False)
        return Draft(seek, start, end, part, text, found)

    stops = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]
    if not stops:
        times = [token for token in tokens if token >= begin]
        last = (times[-1] - begin) * TIMESTAMP_STEP if times and times[-1] != begin else seconds
        return Cut([draft(offset, offset + last, tokens)], ends_silent, None)
    if ends_silent:
        stops.append(len(tokens))
    drafts, last = [], 0
    for stop in stops:
        part = tokens[last:stop]
        first, final = ((token - begin) * TIMESTAMP_STEP for token in (part[0], part[-1]))
        drafts.append(draft(offset + first, offset + final, part))
        last = stop
    if ends_silent:
        return Cut(drafts, True, None)
    if keep_tail and any(token < tokenizer.eot for token in tokens[last:]):
        start = (tokens[last] - begin) * TIMESTAMP_STEP if is_time[last] else drafts[-1].end - offset
        drafts.append(draft(offset + start, offset + max(start, seconds), tokens[last:]))
    return Cut(drafts, False, (tokens[last - 1] - begin) * TIMESTAMP_STEP)


def last_end(drafts: list[Draft]) -> float | None:
    """End of the last word, or of the last segment where no segment has words; None without segments."""
    ends = [word.end for draft in drafts for word in draft.words or ()]
    return ends[-1] if ends else drafts[-1].end if drafts else None


def append_in_order(drafts: list[Draft], more: list[Draft], start: float, stop: float):
    """Appends the segments with text of a piece that was heard from `start` to `stop` seconds: their times stay within
    it, and none begins before the one before it has ended.

    A network knows windows of 30 s and may claim times after the end of a shorter piece. Text of which no time is left
    joins the segment before it; the first of a piece then stands for all of it.
    """
    earlier = len(drafts)
    for draft in more:
        draft.clear_if_empty()
        if not draft.text.strip():
            continue
        low = max([start, *(before.end for before in drafts[-1:])])
        begin = min(max(draft.start, low), stop)
        end = min(max(draft.end, begin), stop)
        if begin == end and drafts and (len(drafts) > earlier or low == stop):
            drafts[-1].join(draft, end)
            continue
        draft.move(*((low, stop) if begin == end else (begin, end)))
        drafts.append(draft)
