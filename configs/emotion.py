"""Emotions of acted speech, tested on actors whom no network has heard: Emo-DB, RAVDESS, CREMA-D by their file names.

    moejax cv --config configs/emotion.py --config.data.root=DATA/emodb --workdir runs/emodb
    moejax cv --config configs/emotion.py --config.data.source=ravdess --config.folds.count=6 --workdir runs/ravdess
    moejax cv --config configs/emotion.py:quick --config.data.root=DATA/emodb --workdir runs/emodb-quick

Each actor is a fold; --config.folds.count=6 makes six of several actors each. The last line is minutes on two cores and
needs no published weights. Figures: docs/sounds.md.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "quick"):
        raise ValueError(f"unknown variant {variant!r}; known: quick")
    c = ConfigDict()
    c.name = "emotion"
    c.data = dict(source="emodb", root="data/emodb", language="de")
    c.model = dict(pretrained="base")
    c.folds = dict(
        models=("probe", "cnn"),
        count=0,
        batch_size=32,
        own=dict(
            probe=dict(epochs=40, learning_rate=1e-3, weight_decay=0.01, dropout=0.3, clip=1.0),
            cnn=dict(
                epochs=40,
                learning_rate=1e-3,
                weight_decay=0.01,
                smoothing=0.1,
                spec=True,
                time_masks=2,
                time_width=20,
                freq_masks=2,
                freq_width=8,
                shift=0.2,
                gain=6.0,
                mixup=0.3,
            ),
        ),
    )
    if variant == "quick":
        c.model.pretrained = ""
        c.folds.models = ("cnn",)
        c.folds.own.cnn.update(epochs=12, mixup=0.0)
    return c
