"""Files byte for byte as openai-whisper writes them. Opt-in: needs openai-whisper, `pytest tests/peers`."""

import itertools

import numpy as np
import pytest
from whisper.utils import get_writer

from moejax.text import writers
from moejax.text.transcript import Segment, Transcript, Word

WIDTHS, LINES, MOST, MARKED = (None, 1, 9, 24, 60), (None, 1, 2), (None, 1, 3, 5), (False, True)
VOCABULARY = [" one", " two,", "-three", " vier", " -->", " ünf", "。", " a\tb", "  wide", ' "so"', "\nnew", " x" * 20]


def spoken(seed, *, timed):
    """A transcript of random words, pauses (some long), empty and wordless segments."""
    rng = np.random.default_rng(seed)
    segments, time = [], float(rng.choice([0.0, 3590.0]))
    for id in range(int(rng.integers(0, 6))):
        texts = [str(word) for word in rng.choice(VOCABULARY, int(rng.integers(0, 12)))]
        words, start = [], time
        for text in texts:
            time += float(rng.choice([0.0, 0.1, 0.25, 3.5], p=[0.5, 0.3, 0.15, 0.05]))
            end = time + float(rng.uniform(0.02, 0.7))
            words.append(Word(round(time, 2), round(end, 2), text, float(rng.uniform())))
            time = end
        scores = dict(zip(("avg_logprob", "compression_ratio", "no_speech_prob"), rng.normal(size=3), strict=True))
        segments.append(
            Segment(
                start,
                time + 1 / 3,
                "".join(texts),
                id=id,
                seek=100 * id,
                tokens=rng.integers(0, 9, 4).tolist(),
                words=words if timed else None,
                **{name: float(value) for name, value in scores.items()},
            )
        )
    return Transcript("".join(segment.text for segment in segments), segments, "de")


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_files_equal_the_references(tmp_path, seed, timed):
    transcript = spoken(seed, timed=timed)
    for at, (width, lines, most, marked) in enumerate(itertools.product(WIDTHS, LINES, MOST, MARKED)):
        options = {
            "max_line_width": width,
            "max_line_count": lines,
            "max_words_per_line": most,
            "highlight_words": marked,
        }
        if at and not timed:
            break
        get_writer("all", str(tmp_path))(writers.as_dict(transcript), "theirs.wav", options)
        writers.write(transcript, tmp_path / "ours", writers.FORMATS, writers.Layout(**options))
        for name in writers.FORMATS:
            ours, theirs = ((tmp_path / f"{who}.{name}").read_bytes() for who in ("ours", "theirs"))
            assert ours == theirs, (name, options)
