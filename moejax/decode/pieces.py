"""Recordings as independent short windows, each as loud as it was: for models trained on utterances, not on 30 s.

Cut at silences, no timestamps: a piece is a segment. Its audio goes to the network as in training and evaluation (the
features' floor is the piece's own), so a short recording gives exactly what evaluation gives.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.decode.alignment import Asked
from moejax.decode.chunked import Cutter, spans_of
from moejax.decode.guards import SILENT
from moejax.decode.longform import Reading, mean_route
from moejax.decode.segments import Draft, cut_at_timestamps
from moejax.decode.together import numbered
from moejax.decode.words import add_words, text_tokens
from moejax.text.transcript import Transcript

BATCHES = 4  # windows of this many batches are collected, so that those of one length fill batches of their own


@dataclasses.dataclass
class _Piece:
    place: int
    first: bool  # of its recording
    start: int  # in samples of the recording
    audio_S: np.ndarray
    draft: Draft | None = None
    language: str | None = None
    dropped: str | None = None


def transcribe_pieces(
    recordings: Iterable[np.ndarray | None], reading: Reading, cut: Cutter
) -> Iterator[tuple[int, Transcript]]:
    """(place, Transcript) of each recording [S], in order; `cut` as of `chunked.transcribe_chunked`, into pieces of
    `reading.window_seconds` at most.

    Of the options, `initial_prompt` (before every piece), clips, word times and guards apply. Segment texts are
    stripped and joined by blanks.
    """
    hear = _Hearing(reading)
    assert reading.window_seconds is not None  # a model that hears short windows says how short
    waiting, pieces = [], []
    for place, audio_S in numbered(recordings):
        if audio_S is None:  # nobody comes just now: those who wait are read, and if none does, that was all
            if not waiting:
                return
            yield from hear(waiting, pieces)
            waiting, pieces = [], []
            continue
        waiting.append((place, len(audio_S)))
        spans = spans_of(audio_S, cut, reading.window_seconds, reading.options)
        pieces += [_Piece(place, i == 0, start, audio_S[start:stop]) for i, (start, stop) in enumerate(spans)]
        if len(pieces) >= BATCHES * reading.model.batch_size:
            yield from hear(waiting, pieces)
            waiting, pieces = [], []
    yield from hear(waiting, pieces)


class _Hearing:
    """Decodes collected pieces and joins them into transcripts."""

    def __init__(self, reading: Reading):
        self.model, self.tokenizer, self.config = reading.model, reading.tokenizer, reading.config
        self.decoding, self.options = reading.decoding, reading.options
        self.align, self.progress = reading.align, reading.progress
        self.prompt = reading.prompt() if self.options.initial_prompt else None

    def __call__(self, waiting, pieces):
        for piece in pieces:
            piece.dropped = self.options.guards.before(piece.audio_S)
        heard = [piece for piece in pieces if piece.dropped is None]
        self._decode(heard, dict(waiting))
        for place, _ in waiting:
            yield place, self._join([piece for piece in pieces if piece.place == place])

    def _decode(self, pieces, total):
        done = collections.Counter()
        for encoded in self.model.encode([piece.audio_S for piece in pieces]):
            mine = [pieces[row] for row in encoded.rows]
            prompts = None if self.prompt is None else [self.prompt] * len(mine)
            found = self._search(encoded, prompts, mine)
            for piece, decoding in zip(mine, found, strict=True):
                self._keep(piece, decoding)
                done[piece.place] += len(piece.audio_S)
            if self.options.word_timestamps:
                self._add_words(encoded, mine)
            if self.progress is not None:
                for place in sorted({piece.place for piece in mine}):
                    self.progress(place, done[place] / SAMPLE_RATE, total[place] / SAMPLE_RATE)

    def _search(self, encoded, prompts, pieces):
        found = self.model.search(encoded, prompts, dataclasses.replace(self.decoding, prefix=None))
        first = [piece.first for piece in pieces]
        if not self.decoding.prefix or not any(first):
            return found
        begun = self.model.search(encoded, prompts, self.decoding)
        return [one if begins else other for begins, one, other in zip(first, begun, found, strict=True)]

    def _keep(self, piece, found):
        seconds = len(piece.audio_S) / SAMPLE_RATE
        reason = self.options.guards.after(found, seconds)
        if reason is not None:
            piece.dropped = reason if found.text.strip() else None
            return
        piece.language = found.language
        offset, seek = piece.start / SAMPLE_RATE, round(piece.start / self.config.hop)
        cut = cut_at_timestamps(found, self.tokenizer, seek=seek, offset=offset, seconds=seconds)
        piece.draft = cut.drafts[0]

    def _add_words(self, encoded, pieces):
        assert self.align is not None  # as `Reading` has made sure
        asked = [self._asked(piece) for piece in pieces]
        for piece, question, words in zip(pieces, asked, self.align(encoded, asked), strict=True):
            if piece.draft is not None:
                offset = piece.start / SAMPLE_RATE
                add_words(
                    [piece.draft],
                    words if question else [],
                    eot=self.tokenizer.eot,
                    offset=offset,
                    last_speech=offset,
                    prepended=self.options.prepend_punctuations,
                    appended=self.options.append_punctuations,
                )

    def _asked(self, piece) -> Asked | None:
        if piece.draft is None:
            return None
        tokens = sum(text_tokens([piece.draft], self.tokenizer.eot), [])
        return Asked(tokens, piece.language, -(-len(piece.audio_S) // self.config.hop)) if tokens else None

    def _join(self, pieces):
        drafts = [piece.draft for piece in pieces if piece.draft is not None]
        for draft in drafts:
            draft.clear_if_empty()
            draft.text = draft.text.strip()
        languages = collections.Counter(piece.language for piece in pieces if piece.language is not None)
        spoken = languages.most_common(1)[0][0] if languages else "en"
        silent = {} if pieces else {SILENT: 1}
        return Transcript(
            text=" ".join(draft.text for draft in drafts if draft.text),
            segments=[draft.finished(id, self.config.hop) for id, draft in enumerate(drafts)],
            language=self.decoding.language or spoken,
            route=mean_route(drafts),
            dropped=dict(collections.Counter(piece.dropped for piece in pieces if piece.dropped)) or silent,
        )
