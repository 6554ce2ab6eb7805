"""Ten kinds of environmental sound (ESC-10, Piczak 2015) in their five official folds.

    moejax cv --config configs/esc10.py --config.data.root=DATA/esc10 --workdir runs/esc10
    moejax cv --config configs/esc10.py:quick --config.data.root=DATA/esc10 --workdir runs/esc10-quick

The second is minutes on two cores: a network from scratch, few epochs, no published weights. The corpus is a folder
with audio/ and a metadata.csv of file, fold, category, source_clip; of ESC-50 as it is published take
--config.data.source=esc50 and --config.data.options.esc10=True. Figures: docs/sounds.md.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "quick"):
        raise ValueError(f"unknown variant {variant!r}; known: quick")
    c = ConfigDict()
    c.name = "esc10"
    c.data = dict(
        source="folder",
        root="data/esc10",
        columns=dict(audio="file", label="category", speaker="source_clip"),
        split_fractions=(0.8, 0.1, 0.1),
    )
    c.model = dict(pretrained="base")
    c.clips = dict(seconds=5.0, hop=1024, hears=5.0)
    c.folds = dict(
        models=("probe", "crnn"),
        batch_size=32,
        own=dict(
            probe=dict(epochs=40, learning_rate=1e-3, weight_decay=0.01, dropout=0.3, clip=1.0),
            crnn=dict(
                epochs=40,
                batch_size=16,
                learning_rate=2e-3,
                weight_decay=0.01,
                smoothing=0.1,
                spec=True,
                time_masks=2,
                time_width=12,
                freq_masks=2,
                freq_width=10,
                shift=0.5,
                gain=6.0,
                mixup=0.3,
            ),
        ),
    )
    if variant == "quick":
        c.model.pretrained = ""
        c.folds.models = ("crnn",)
        c.folds.own.crnn.update(epochs=12, mixup=0.0)
    return c
