"""A diarizer on the frozen encoder of a published Whisper, learnt from talks that are simulated of single speakers.

    moejax diarizer --config configs/diarize.py --config.data.root=DATA --workdir runs/diarize
    moejax diarize talk.wav --model runs/diarize
    moejax ego --config configs/diarize.py:ego --config.data.root=DATA --workdir runs/ego

EEND's protocol on Mini LibriSpeech (OpenSLR 31, unpacked in MINI):

    moejax recipe mini_librispeech MINI
    moejax diarizer --config configs/diarize.py:mini_librispeech --config.data.root=MINI --workdir runs/mini

DATA is a folder of audio with a metadata.csv (file, text, speaker; a column corpus, whose speakers are mixed among
themselves alone). Talks of train, dev and test have no speaker in common. Figures are in docs/diarization.md.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    known = ("logmel", "mini_librispeech", "aed", "aed_ee", "tsvad", "linear", "ego", "notes", "notes-linear", "smoke")
    if variant and variant not in known:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(known)}")
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
    if (
        variant == "mini_librispeech"
    ):  # EEND's recipe: SA-EEND, 500 mixtures of two, about 2,200 chunks of 50 s, 10 epochs
        c.data.split, c.data.columns = "official", dict(audio="audio_filepath")
        c.model.pretrained = ""
        c.talks = dict(train=2200, dev=250, test=250, seconds=50.0, hears="logmel", kind="mixture", speakers=(2,))
        c.talks.beta, c.talks.noises, c.talks.level = 2.0, (5.0, 10.0, 15.0, 20.0), 0.0
        c.diarizer = dict(steps=344, batch_size=64, head="fixed", most=2, width=256, heads=4, layers=2, ffn=2048)
        c.diarizer.clip, c.diarizer.warmup = 5.0, 100
    if variant in ("aed", "aed_ee", "tsvad"):  # speakers known by enrolments
        c.diarizer.head, c.diarizer.enhance = variant.partition("_")[0], variant == "aed_ee"
    if variant == "linear":
        c.diarizer.attention = "linear"
    if variant == "ego":  # one enrolled speaker at a time
        c.diarizer.steps = 0
        c.ego = dict(steps=600, batch_size=16, width=128, heads=4, layers=2, ffn=256)
    if variant.startswith("notes"):  # TS-DIA's sizes on EEND's features; 5 speakers, chunks of 5 s
        c.model.pretrained, c.diarizer.steps = "", 0
        c.talks = dict(train=100_000, dev=500, test=500, seconds=5.0, hears="logmel", kind="mixture", speakers=(2, 3))
        c.ego = dict(steps=100_000, batch_size=64, learning_rate=1e-4)
        if variant == "notes-linear":
            c.ego.attention, c.ego.decoder = "linear", "linear"
    if c.talks.get("hears") == "logmel":  # EEND's recipes have one microphone
        c.talks.colour = c.talks.telephone = 0.0
    if variant == "smoke":
        c.talks.train, c.talks.dev, c.talks.test, c.diarizer.steps, c.diarizer.batch_size = 4, 2, 2, 2, 2
    return c
