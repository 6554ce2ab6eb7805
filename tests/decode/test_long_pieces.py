"""Chunked reading of pieces that are longer than the window: side by side, each window after window."""

from test_longform import OFF, WORDS, Scripted, chunked, cut_every, ramp, spans, speaking, tokenizer  # noqa: F401

from moejax.decode.chunked import PIECES, SPARE
from moejax.decode.longform import LongformOptions


def test_a_piece_longer_than_the_window_is_read_window_after_window(tokenizer):  # noqa: F811
    """Two pieces of 20 s in windows of 8 s, side by side to their ends."""
    model, done = Scripted(tokenizer, speaking(tokenizer)), []
    options = {"options": LongformOptions(guards=OFF), "progress": lambda *told: done.append(told[1])}
    (found,) = chunked([ramp(40)], model, cut=cut_every(20), window_seconds=8, **options)
    assert found.text.split() == WORDS and spans(found)[-1] == (" eight", 35.0, 36.0)
    assert max(seconds for _, seconds, _, _ in model.seen) == 8.0 and max(model.sizes) == 2  # the pieces side by side
    assert done == sorted(done) and done[-1] == 40.0 and len(done) == len(model.seen)


def test_a_withheld_window_in_the_middle_of_a_piece_does_not_end_it(tokenizer):  # noqa: F811
    audio_S = ramp(24)
    audio_S[8 * 16000 : 16 * 16000] = 0.0
    model = Scripted(tokenizer, speaking(tokenizer))
    (found,) = chunked([audio_S], model, cut=cut_every(24), window_seconds=8)
    assert found.text.split() == ["one", "two", "five"] and found.dropped == {"energy": 1}


def test_a_long_recording_is_cut_into_as_many_pieces_as_share_a_batch(tokenizer):  # noqa: F811
    asked = []

    def cut(audio_S, most):
        asked.append(most)
        return cut_every(most - SPARE)(audio_S, most)

    model = Scripted(tokenizer, speaking(tokenizer))
    (found,) = chunked([ramp(40)], model, cut=cut, window_seconds=4, options=LongformOptions(guards=OFF))
    assert asked == [40 / PIECES + SPARE] and found.text.split() == WORDS
