"""Emotions as tokens of a published Whisper: said before the text, learnt from labelled speech of any corpus.

    moejax emotions --config configs/emotion_token.py --config.data.root=DATA/ravdess --workdir runs/ravdess-token
    moejax transcribe talk.wav --model runs/ravdess-token --system emotion --format json

No actor is in two parts. The corpus is RAVDESS by its file names; any table with a column of labels will do
(--config.data.source=folder --config.data.columns.label=emotion). Figures: docs/emotion.md.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "quick"):
        raise ValueError(f"unknown variant {variant!r}; known: quick")
    c = ConfigDict()
    c.name = "emotion-token"
    c.data = dict(
        source="ravdess",
        root="data/ravdess",
        split="speaker_disjoint",
        split_fractions=(0.6, 0.15, 0.25),
    )
    c.model = dict(pretrained="tiny.en")
    c.mixture = dict(targets=("decoder/layers/*/*",))
    c.emotion = dict(steps=300, rank=8, learning_rate=1e-3, batch_size=16, evals=4)
    if variant == "quick":
        c.emotion.steps = 20
        c.emotion.evals = 0
    return c
