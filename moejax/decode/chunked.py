"""Long recordings in independent pieces: cut at silences, decoded in full batches, joined.

Faster than the sequential algorithm on one long recording, since windows need not wait for one another; the price is
that no window knows the text before it. Each piece has features of its own, as if it were a recording.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.decode.alignment import Asked
from moejax.decode.decoder import Window
from moejax.decode.longform import Reading, mean_route
from moejax.decode.segments import Draft, append_in_order, cut_at_timestamps
from moejax.decode.together import Hear, Listening, run_together
from moejax.decode.words import add_words, text_tokens
from moejax.text.transcript import Transcript

Cutter = Callable[[np.ndarray, float], list[tuple[int, int]]]  # (audio [S], most seconds) -> (start, stop) in samples


@dataclasses.dataclass
class _Piece:
    """One of `count` pieces of recording `place`, from sample `start` to `stop`."""

    place: int
    index: int
    count: int
    start: int
    stop: int
    total: int  # samples of the recording
    drafts: list[Draft] = dataclasses.field(default_factory=list)
    language: str | None = None
    dropped: str | None = None


def transcribe_chunked(
    recordings: Iterable[np.ndarray], reading: Reading, cut: Cutter
) -> Iterator[tuple[int, Transcript]]:
    """(place, Transcript) of each recording, in the order in which they are finished.

    `cut` says where to cut, such as `audio.read.chunks`: pieces that follow on one another, at silences. Segments
    follow on one another within the recording (`segments.append_in_order`), whatever times the network claims.
    `language` None is detected for each piece; the transcript has that of most pieces. A recording is read when pieces
    of it are needed. `initial_prompt` is the prompt of every piece; of the other options only the word options and
    `guards` apply. Errors: ValueError for pieces beyond the window.
    """
    window = reading.frames * reading.config.hop / SAMPLE_RATE

    def listenings():
        for place, audio_S in enumerate(recordings):
            for piece in _pieces(place, audio_S, cut, window):
                yield _listen(piece, audio_S[piece.start : piece.stop], reading)

    # Pieces end in any order; a recording is joined when all of its pieces are there.
    heard = collections.defaultdict(list)
    for _, piece in run_together(listenings(), reading.model, reading.decoding, reading.align):
        mine = heard[piece.place]
        mine.append(piece)
        if reading.progress is not None:
            done = sum(one.stop - one.start for one in mine)
            reading.progress(piece.place, done / SAMPLE_RATE, piece.total / SAMPLE_RATE)
        if len(mine) == piece.count:
            del heard[piece.place]
            mine.sort(key=lambda one: one.index)
            yield piece.place, _join(mine, reading)


def _pieces(place, audio_S, cut, window):
    """The pieces of a recording; one, perhaps without a sample, at least."""
    spans = list(cut(audio_S, window)) or [(0, len(audio_S))]
    for start, stop in spans:
        if stop - start > int(window * SAMPLE_RATE):
            long = (stop - start) / SAMPLE_RATE
            raise ValueError(f"a piece of {long:.2f} s; the window holds {window:.2f} s")
    return [_Piece(place, i, len(spans), start, stop, len(audio_S)) for i, (start, stop) in enumerate(spans)]


def _listen(piece, audio_S, reading: Reading) -> Listening:
    """One piece as a generator of questions; returns it with what was heard."""
    seconds, offset = len(audio_S) / SAMPLE_RATE, piece.start / SAMPLE_RATE
    tokenizer, config, options = reading.tokenizer, reading.config, reading.options
    piece.dropped = options.guards.before(audio_S) if len(audio_S) else None
    if piece.dropped is not None or not len(audio_S):
        return piece
    features = reading.features(audio_S)
    size, prompt = -(-len(audio_S) // config.hop), reading.prompt()  # the last frame may be a part
    found = yield Hear(Window(features.slice(0, size), audio_S), prompt, reading.decoding.language)
    piece.language = found.language
    reason = options.guards.after(found, seconds)
    if reason is not None:
        piece.dropped = reason if found.text.strip() else None
        return piece
    seek = round(piece.start / config.hop)
    drafts = cut_at_timestamps(found, tokenizer, seek=seek, offset=offset, seconds=seconds, keep_tail=True).drafts
    if options.word_timestamps:
        tokens = sum(text_tokens(drafts, tokenizer.eot), [])
        words = (yield Asked(tokens, found.language, size)) if tokens else []
        add_words(
            drafts,
            words,
            eot=tokenizer.eot,
            offset=offset,
            last_speech=offset,
            prepended=options.prepend_punctuations,
            appended=options.append_punctuations,
        )
    piece.drafts = drafts
    return piece


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
        dropped=dict(collections.Counter(piece.dropped for piece in pieces if piece.dropped)),
    )
