"""A diarizer on the frozen encoder of a published Whisper, learnt from talks that are simulated of single speakers.

    moejax diarizer --config configs/diarize.py --config.data.root=DATA --workdir runs/diarize
    moejax diarize talk.wav --model runs/diarize

DATA is a folder of audio with a metadata.csv (file, text, speaker; a column corpus, whose speakers are mixed among
themselves alone). Talks of train, dev and test have no speaker in common. Figures are in docs/diarization.md.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "logmel", "linear", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: logmel, linear, smoke")
    c = ConfigDict()
    c.name = f"diarize-{variant}" if variant else "diarize"
    c.data = dict(source="folder", root="data", split="speaker_disjoint", columns=dict(audio="file", accent="corpus"))
    c.model = dict(pretrained="tiny.en")
    c.talks = dict(train=600, dev=60, test=60, within="accent")
    c.diarizer = dict(steps=600, batch_size=16, width=192, heads=4, layers=3, ffn=768)
    if variant == "logmel":  # EEND's features, its sizes and its length: no published weights
        c.model.pretrained = ""
        c.talks.hears, c.talks.kind, c.talks.speakers = "logmel", "mixture", (2,)
        c.diarizer.most, c.diarizer.width, c.diarizer.layers, c.diarizer.ffn = 2, 256, 2, 2048
    if variant == "linear":
        c.diarizer.attention = "linear"
    if variant == "smoke":
        c.talks.train, c.talks.dev, c.talks.test, c.diarizer.steps, c.diarizer.batch_size = 4, 2, 2, 2, 2
    return c
