"""A rater of English pronunciation, and a head that says how well each letter fits, on a published Whisper.

    moejax rater --config configs/pronounce.py --config.data.root=DATA/speechocean762 --workdir runs/pronounce
    moejax goodness --config configs/pronounce.py --config.data.root=DATA/speechocean762 --workdir runs/pronounce
    moejax pronounce talk.wav --model runs/pronounce --text "what should be said"

DATA/speechocean762 is a folder of audio with a metadata.csv (file, text, speaker, and the columns that experts scored).
Three speakers of ten are heard by nothing that is learnt, and judged once. Figures are in docs/pronunciation.md.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: smoke")
    c = ConfigDict()
    c.name = "pronounce"
    c.data = dict(
        source="folder",
        root="data/speechocean762",
        columns=dict(audio="file"),
        options=dict(text="sentence"),
        split="speaker_disjoint",
        split_fractions=(0.6, 0.1, 0.3),
    )
    # Clips of some seconds in windows of their length: a sixth of the work of 30 s, and nothing is decoded here
    c.model = dict(pretrained="base", times=0.0, buckets=(2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 30.0))
    c.embed = dict(layers=(-1,), pooling="mean_std")
    c.rater = dict(scores=("accuracy", "fluency"))
    c.ctc = dict(steps=400, batch_size=32)
    if variant == "smoke":
        c.ctc.steps, c.ctc.batch_size = 3, 4
        c.data.split_fractions = (0.4, 0.3, 0.3)
    return c
