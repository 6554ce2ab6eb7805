"""A head that says when words and letters sound, on a published Whisper, from recordings and their texts alone.

    moejax ctc --config configs/align.py --config.data.root=DATA --workdir runs/align
    moejax align talk.wav --model runs/align

With phones in place of letters (pip install 'moejax[quickstart]': espeak-ng says how the words of a language sound):

    moejax ctc --config configs/align.py:phones --config.data.root=DATA --workdir runs/phones

DATA is a folder of audio with a metadata.csv (file, text, and speaker where it is known). An hour or two of speech is
enough; five minutes are not. Figures are in docs/alignment.md.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "phones", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: phones, smoke")
    c = ConfigDict()
    c.name = "align"
    c.data = dict(source="folder", root="data", options=dict(text="sentence"), split="per_speaker")
    c.model = dict(pretrained="base", times=0.6)
    c.ctc = dict(steps=400, batch_size=32)
    if variant == "phones":
        c.ctc.units = "phones"
    if variant == "smoke":
        c.ctc.steps, c.ctc.batch_size = 3, 4
    return c
