"""Long recordings in independent pieces: cut at silences, read side by side in full batches, joined.

Faster than the sequential algorithm on one long recording, since windows of different pieces need not wait for one
another; the price is that no window knows the text before it. Each piece has features of its own, as if it were a
recording, and is read window after window as in the sequential algorithm: the next begins at the last pair of
timestamps. Networks have learnt to leave what stands at a window's end to the next window (10 of 11 pieces of one
window each had to be heard again there), so pieces are few and long, as many as share a batch.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.decode.alignment import Asked
from moejax.decode.decoder import Window
from moejax.decode.guards import SILENT
from moejax.decode.longform import LongformOptions, Reading, mean_emotion, mean_route
from moejax.decode.repetition import sounded
from moejax.decode.segments import Draft, append_in_order, cut_at_timestamps
from moejax.decode.together import Hear, Listening, numbered, run_together
from moejax.decode.words import add_words, text_tokens
from moejax.text.transcript import Transcript

PIECES = 8  # of a long recording: a batch of as many reads it from end to end
SPARE = 3.0  # seconds that a piece may be longer than that: it ends at a pause before

Cutter = Callable[[np.ndarray, float], list[tuple[int, int]]]  # (audio [S], most seconds) -> (start, stop) in samples


@dataclasses.dataclass
class _Piece:
    """Piece `index` of recording `place`, from sample `start` to `stop`."""

    place: int
    index: int
    start: int
    stop: int
    total: int  # samples of the recording
    drafts: list[Draft] = dataclasses.field(default_factory=list)
    language: str | None = None  # of the first window in which something was heard
    heard: int = 0  # samples read so far
    dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)


def transcribe_chunked(
    recordings: Iterable[np.ndarray | None], reading: Reading, cut: Cutter
) -> Iterator[tuple[int, Transcript]]:
    """(place, Transcript) of each recording, in the order in which they are finished.

    `cut` says where to cut, such as `audio.read.chunks`: pieces that follow on one another, at silences. Segments
    follow on one another within the recording (`segments.append_in_order`), whatever times the network claims.
    `language` None is detected for each piece; the transcript has that of most pieces. A recording is read when pieces
    of it are needed. `initial_prompt` is the prompt of every window; of the other options the word options, the clips
    and `guards` apply.
    """

    pieces = collections.defaultdict(list)  # of each recording that is being read

    def listenings():
        for place, audio_S in numbered(recordings):
            if audio_S is None:
                yield None
                continue
            mine = reading.of(place, len(audio_S))
            window = mine.frames * mine.config.hop / SAMPLE_RATE
            longest = max(window, len(audio_S) / SAMPLE_RATE / PIECES + SPARE)
            spans = spans_of(audio_S, cut, longest, mine.options) or [(0, len(audio_S))]
            pieces[place] = [_Piece(place, i, start, stop, len(audio_S)) for i, (start, stop) in enumerate(spans)]
            for piece in pieces[place]:
                yield mine.behind(_listen(piece, audio_S[piece.start : piece.stop], mine, pieces[place]))

    # Pieces end in any order; a recording is joined when all of its pieces are there.
    ended = collections.Counter()
    for _, place in run_together(listenings(), reading.model, reading.decoding, reading.align):
        ended[place] += 1
        if ended[place] == len(pieces[place]):
            yield place, _join(pieces.pop(place), reading)


def spans_of(audio_S, cut: Cutter, window: float, options: LongformOptions) -> list[tuple[int, int]]:
    """(start, stop) in samples of the pieces of all clips; none of a recording without a sample."""
    clips = options.clips(len(audio_S), hop=1) if len(audio_S) else []
    return [(first + start, first + stop) for first, last in clips for start, stop in cut(audio_S[first:last], window)]


def _listen(piece, audio_S, reading: Reading, pieces) -> Listening:
    """One piece as a generator of questions, window after window to its end; returns its recording's place. `pieces`:
    all of that recording, of which this is one.
    """
    if not len(audio_S):
        piece.dropped[SILENT] += 1
        return piece.place
    hop, features = reading.config.hop, reading.features(audio_S)
    seek, size = 0, -(-len(audio_S) // hop)  # the last frame may be a part
    rest = False  # whether what is left was heard already, at the end of a window that did not finish it
    while seek < size:
        stop = min(seek + reading.frames, size)
        consumed = yield from _hear(piece, features, audio_S[seek * hop : stop * hop], seek, stop, size, rest, reading)
        rest, seek = stop == size, seek + consumed
        piece.heard = min(seek * hop, len(audio_S))
        if reading.progress is not None:
            done = sum(one.heard for one in pieces)
            reading.progress(piece.place, done / SAMPLE_RATE, piece.total / SAMPLE_RATE)
    return piece.place


def _hear(piece, features, audio_S, seek, stop, size, rest, reading: Reading):
    """The window of a piece from frame `seek` to `stop`, whose audio is `audio_S`: its segments are added.

    Returns the frames up to its last finished segment, those of the window where nothing is left to hear in it.
    """
    tokenizer, hop, options, frames = reading.tokenizer, reading.config.hop, reading.options, stop - seek
    reason = options.guards.before(audio_S)
    if reason is not None:
        piece.dropped.update([] if rest else [reason])  # a rest is no window of its own
        return frames
    window = Window(features.slice(seek, stop), audio_S)
    # One vocabulary, one language: later windows then share batches with first ones.
    language = reading.decoding.language or (piece.language if tokenizer.is_multilingual else "en")
    begins = bool(reading.decoding.prefix) and not piece.index and not seek
    found = yield Hear(window, reading.prompt(), language, begins)
    seconds, offset = len(audio_S) / SAMPLE_RATE, (piece.start + seek * hop) / SAMPLE_RATE
    reason = options.guards.after(found, seconds)
    if reason is not None:
        piece.dropped.update([reason] if found.text.strip() else [])
        return frames
    if reading.align is not None:
        found = yield from sounded(found, frames, tokenizer, seconds)
    piece.language = piece.language or (found.language if found.text.strip() else None)
    at = {"seek": round(piece.start / hop) + seek, "offset": offset, "seconds": seconds}
    cut = cut_at_timestamps(found, tokenizer, **at)
    consumed = frames if cut.consumed is None else round(cut.consumed * SAMPLE_RATE / hop)
    if consumed <= 0 or (stop == size and consumed >= frames):  # a pair that leads nowhere, or all of it
        cut, consumed = cut_at_timestamps(found, tokenizer, keep_tail=True, **at), frames
    if options.word_timestamps:
        yield from _add_words(cut.drafts, found, frames, offset, piece, reading)
    piece.drafts += cut.drafts
    return consumed


def _add_words(drafts, found, size, offset, piece, reading: Reading):
    eot, options = reading.tokenizer.eot, reading.options
    tokens = sum(text_tokens(drafts, eot), [])
    words = (yield Asked(tokens, found.language, size)) if tokens else []
    add_words(
        drafts,
        words,
        eot=eot,
        offset=offset,
        last_speech=piece.drafts[-1].end if piece.drafts else piece.start / SAMPLE_RATE,
        prepended=options.prepend_punctuations,
        appended=options.append_punctuations,
    )


def _join(pieces, reading: Reading):
    drafts: list[Draft] = []
    for piece in pieces:
        append_in_order(drafts, piece.drafts, piece.start / SAMPLE_RATE, piece.stop / SAMPLE_RATE)
    languages = collections.Counter(piece.language for piece in pieces if piece.language is not None)
    language = reading.decoding.language or (languages.most_common(1)[0][0] if languages else "en")
    tokens = [token for draft in drafts for token in draft.tokens]
    return Transcript(
        text=reading.tokenizer.decode(tokens, strip=False),
        segments=[draft.finished(id, reading.config.hop) for id, draft in enumerate(drafts)],
        language=language,
        route=mean_route(drafts),
        emotion=mean_emotion(drafts),
        dropped=dict(sum((piece.dropped for piece in pieces), collections.Counter())),
    )
