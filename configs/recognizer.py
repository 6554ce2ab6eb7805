"""A micro Whisper that behaves like a published one (vocabulary, 30 s windows, times, prompts, silence), on digits.

    moejax base --config configs/recognizer.py --config.data.root=DATA/fsdd \
        --config.model.vocabulary=DATA/whisper_vocab --workdir runs/recognizer

Needs the Free Spoken Digit Dataset with a metadata.csv (file, text, digit, speaker, take) and a folder with the
published multilingual.tiktoken. 22 minutes on two CPU cores that five other jobs used as well.
RUN/base/model is then a Hugging Face folder that other recognisers load as well (README, "Only a recogniser").
Words are learnt in windows of 1 s, and where they stand in ever longer ones; in the 30 s that every decoder shows it
the model writes three utterances and the time of the fourth, and is shown the rest from there on.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: smoke")
    c = ConfigDict()
    c.name = "recognizer"
    c.data = dict(
        source="digits",
        root="data/fsdd",
        split="official",
        options=dict(strings_per_speaker=dict(train=400, dev=30, test=60)),
    )
    c.model = dict(
        size="micro",
        sizes=dict(hop=160, mask_padding=False, max_source_positions=1500, max_target_positions=448),
        vocabulary="data/whisper_vocab",
        buckets=(30.0,),
    )
    c.base = dict(
        timestamps=True,
        warmup=50,
        weight_decay=0.01,
        spec=True,
        time_masks=1,
        time_width=8,
        freq_masks=1,
        freq_width=8,
        warp_freq=0.1,
        level=0.1,
        pack=dict(
            seconds=(1.0, 2.0, 4.0, 8.0, 30.0),
            steps=(500, 400, 300, 300, 150),
            batch_sizes=(48, 32, 24, 16, 6),
            learning_rates=(3e-3, 3e-3, 3e-3, 2.5e-3, 1.5e-3),
            prompt_tokens=(0, 0, 0, 48, 223),
            most=3,
            guide=0.2,
            speed=0.1,
            gain=6.0,
            empty=0.4,
        ),
    )
    c.runtime = dict(cpu_devices=2)
    c.embed = dict(layers=(0, 1, 2), pooling="mean_std")
    c.evaluate = dict(batch_size=8)
    c.gate = dict(num_experts=3, hidden=64)
    c.mixture = dict(
        targets=("encoder/layers/*/*", "decoder/layers/*/*"), rank=4, alpha=8.0, shared_rank=4, routing="dense"
    )
    c.experts = dict(steps=30, batch_size=8, learning_rate=2e-3)
    c.joint = dict(steps=60, batch_size=8, learning_rate=2e-3)
    c.adapters = dict(batch_size=8, learning_rate=2e-3, kinds=("lora",))
    if variant == "smoke":
        c.data.options.strings_per_speaker = dict(train=20, dev=10, test=10)
        c.base.pack.steps = (2,) * 5
        c.base.pack.batch_sizes = (4, 2, 2, 2, 2)
        c.experts.steps = c.joint.steps = 3
    return c
