"""Emotions as tokens of a published Whisper: said before the text, learnt from any table with labels.

    moejax emotions --config configs/emotion_token.py --config.data.root=DATA/spoken --workdir runs/token
    moejax transcribe talk.wav --model runs/token --system emotion --format json

The folder has a metadata.csv of file, text, speaker, label (an emotion; nothing where nobody knows: such utterances
show what the text is worth) and split (train, dev, test; no speaker in two of them). Of RAVDESS by its file names:
--config.data.source=ravdess --config.data.split=speaker_disjoint. Figures: docs/emotion.md.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "quick"):
        raise ValueError(f"unknown variant {variant!r}; known: quick")
    c = ConfigDict()
    c.name = "emotion-token"
    c.data = dict(source="folder", root="data/spoken", split="official")
    c.model = dict(pretrained="tiny.en")
    c.mixture = dict(targets=("decoder/layers/*/*",))
    c.report = dict(normalizer="english")
    c.emotion = dict(steps=300, rank=8, learning_rate=1e-3, batch_size=16, rows_rate=0.1, weight_decay=0.1)
    c.emotion.update(evals=8, keep="best")  # ten actors are soon learnt by heart
    if variant == "quick":
        c.emotion.steps = 20
        c.emotion.evals = 0
    return c
