"""Initials, finals and tones of Mandarin on a published multilingual Whisper, from synthesised speech.

    moejax goodness --config configs/mandarin.py --workdir runs/mandarin
    moejax pronounce talk.wav --model runs/mandarin --text "ni3 hao3"

With a corpus of people: --config.data.source=folder --config.data.root=DATA, whose texts are hanzi (pip install
'moejax[pron]') or numbered pinyin. Figures are in docs/pronunciation.md.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: smoke")
    c = ConfigDict()
    c.name = "mandarin"
    c.data = dict(
        source="mandarin",
        language="zh",
        # Of sentences of 10 to 45 syllables a head learns where they stand by heart, and nothing of sounds
        options=dict(speakers=10, sentences=80, shortest=2, longest=8),
        split="speaker_disjoint",
        split_options=dict(test_speakers=("f4", "m2", "f5"), dev_speakers=("f3",)),
    )
    # Clips of some seconds in windows of their length: a sixth of the work of 30 s, and nothing is decoded here
    c.model = dict(pretrained="base", times=0.0, buckets=(2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 30.0))
    c.ctc = dict(steps=300, batch_size=32, units="pinyin", hidden=64, evals=6, keep="best")
    if variant == "smoke":
        c.ctc.steps, c.ctc.batch_size, c.ctc.evals = 3, 4, 0
        c.data.options = dict(speakers=4, sentences=4, shortest=3, longest=7)
        c.data.split_options = dict(test_speakers=("f2",), dev_speakers=("f1",))
    return c
