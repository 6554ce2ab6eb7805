"""Long recordings in independent pieces: cut at silences, decoded in full batches, joined.

Faster than the sequential algorithm on one long recording, since windows need not wait for one another; the price is
that no window knows the text before it. Each piece has features of its own, as if it were a recording.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.decode import overlap
from moejax.decode.alignment import Align, Asked
from moejax.decode.decoder import Window
from moejax.decode.features import Features
from moejax.decode.longform import LongformOptions, Progress, check, mean_route, window_frames
from moejax.decode.options import DecodingOptions
from moejax.decode.segments import Draft, append_in_order, cut_at_timestamps
from moejax.decode.together import Hear, Listening, Model, run_together
from moejax.decode.words import add_words, text_tokens
from moejax.errors import BadValue
from moejax.text.transcript import Transcript

Cutter = Callable[[np.ndarray, float], list[tuple[int, int]]]  # (audio [S], most seconds) -> (start, stop) in samples


@dataclasses.dataclass
class _Piece:
    """One of `count` pieces of recording `place`, heard from sample `start` to `stop`; its own begins at `cut`."""

    place: int
    index: int
    count: int
    cut: int
    start: int
    stop: int
    own: int  # samples up to the next cut
    total: int  # samples of the recording
    drafts: list[Draft] = dataclasses.field(default_factory=list)
    language: str | None = None
    dropped: str | None = None


def transcribe_chunked(
    recordings: Iterable[np.ndarray],
    model: Model,
    tokenizer,
    config,
    *,
    cut: Cutter,
    window_seconds: float | None = None,
    overlap_seconds: float = 0.0,
    merge: str = "tokens",
    decoding: DecodingOptions | None = None,
    options: LongformOptions | None = None,
    align: Align | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Transcript]]:
    """(place, Transcript) of each recording, in the order in which they are finished.

    Args as `longform.transcribe_sequential`, and:
      cut: where to cut, such as `data.audio.chunks`: pieces that follow on one another, at silences.
      overlap_seconds: each piece is heard this much longer, half of it on either side of a cut; 0 where cuts lie in
        silence and nothing is lost there.
      merge: of `overlap.MERGES`, how the text of shared audio is joined: "tokens" or "times".

    Segments follow on one another within the recording (`segments.append_in_order`), whatever times the network claims.
    `language` None is detected for each piece; the transcript has that of most pieces. A recording is read when pieces
    of it are needed. `initial_prompt` is the prompt of every piece; of the other options only the word options and
    `guards` apply. Errors: ValueError, also for an overlap of half a window or more and for pieces beyond the window.
    """
    decoding, options = decoding or DecodingOptions(), options or LongformOptions()
    check(options, align)
    frames = window_frames(config, window_seconds)
    window = frames * config.hop / SAMPLE_RATE
    if not 0 <= overlap_seconds < window / 2:
        raise BadValue(f"overlap_seconds is {overlap_seconds:g}; must be 0 to less than half of {window:g}")
    if merge not in overlap.MERGES:
        raise BadValue(f"merge is {merge!r}; known: {', '.join(overlap.MERGES)}")

    def listenings():
        for place, audio_S in enumerate(recordings):
            for piece in _pieces(place, audio_S, cut, window, overlap_seconds):
                yield _listen(piece, audio_S[piece.start : piece.stop], tokenizer, config, frames, decoding, options)

    # Pieces end in any order; a recording is joined when all of its pieces are there.
    heard = collections.defaultdict(list)
    for _, piece in run_together(listenings(), model, decoding, align):
        mine = heard[piece.place]
        mine.append(piece)
        if progress is not None:
            progress(piece.place, sum(one.own for one in mine) / SAMPLE_RATE, piece.total / SAMPLE_RATE)
        if len(mine) == piece.count:
            del heard[piece.place]
            mine.sort(key=lambda one: one.index)
            yield piece.place, _join(mine, tokenizer, config, overlap_seconds, merge, decoding)


def _pieces(place, audio_S, cut, window, overlap_seconds):
    """The pieces of a recording; one, perhaps without a sample, at least."""
    most, half = int(window * SAMPLE_RATE), int(overlap_seconds * SAMPLE_RATE) // 2
    spans = list(cut(audio_S, window - overlap_seconds)) or [(0, len(audio_S))]
    pieces = []
    for index, (start, stop) in enumerate(spans):
        first, last = max(start - half, 0), min(stop + half, len(audio_S))
        if last - first > most:
            long = (last - first) / SAMPLE_RATE
            raise BadValue(f"a piece of {long:.2f} s with its overlap; the window holds {window:.2f} s")
        pieces.append(_Piece(place, index, len(spans), start, first, last, stop - start, len(audio_S)))
    return pieces


def _listen(piece, audio_S, tokenizer, config, window, decoding, options) -> Listening:
    """One piece as a generator of questions; returns it with what was heard."""
    seconds, offset = len(audio_S) / SAMPLE_RATE, piece.start / SAMPLE_RATE
    piece.dropped = options.guards.before(audio_S) if len(audio_S) else None
    if piece.dropped is not None or not len(audio_S):
        return piece
    features = Features(audio_S, n_mels=config.num_mel_bins, hop=config.hop, block=window)
    size = -(-len(audio_S) // config.hop)  # the last frame may be a part
    prompt = tokenizer.encode(options.initial_prompt) if options.initial_prompt else []
    found = yield Hear(Window(features.slice(0, size), audio_S), prompt, decoding.language)
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


def _join(pieces, tokenizer, config, overlap_seconds, merge, decoding):
    if overlap_seconds:
        for left, right in zip(pieces[:-1], pieces[1:], strict=True):
            overlap.merge(
                left.drafts,
                right.drafts,
                middle=right.cut / SAMPLE_RATE,
                seconds=overlap_seconds,
                how=merge,
                tokenizer=tokenizer,
            )
    drafts: list[Draft] = []
    for piece in pieces:
        append_in_order(drafts, piece.drafts, piece.start / SAMPLE_RATE, piece.stop / SAMPLE_RATE)
    languages = collections.Counter(piece.language for piece in pieces if piece.language is not None)
    language = decoding.language or (languages.most_common(1)[0][0] if languages else "en")
    tokens = [token for draft in drafts for token in draft.tokens]
    return Transcript(
        text=tokenizer.decode(tokens, strip=False),
        segments=[draft.finished(id, config.hop) for id, draft in enumerate(drafts)],
        language=language,
        route=mean_route(drafts),
        dropped=dict(collections.Counter(piece.dropped for piece in pieces if piece.dropped)),
    )
