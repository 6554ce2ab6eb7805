"""CMU AN4: 56 real speakers, 33 minutes of letters, numbers and short commands. The base knows men, the mixture hears
women too; a fifth of the speakers is heard in the test part only.

    moejax all --config configs/an4.py --config.data.root=DATA/an4 --workdir runs/an4 --seeds 3

Figures are in docs/experiments.md. Needs AN4 as audio files with a metadata.csv (file, text, speaker, gender). The base
is trained from scratch on what the men of the training part say and on synthesised readings of its texts and words in
many voices (needs the quickstart extra); the real part alone is memorised.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: smoke")
    c = ConfigDict()
    c.name = "an4"
    c.data = dict(
        source="folder",
        root="data/an4",
        columns=dict(audio="file", cohort="gender"),
        options=dict(text="lower"),
        split="per_speaker",
        split_fractions=(0.7, 0.1, 0.2),
        unseen_share=0.2,
    )
    c.model = dict(
        size="micro",
        sizes=dict(d_model=128, encoder_layers=3, encoder_ffn=512, decoder_ffn=512),
        vocab_size=800,
        buckets=(1.6, 3.2, 6.6),
    )
    # Short strings first: 1,500 steps on whole sentences from the start left 80 % WER (and 71 % on the training part);
    # word classes are learnt in cheap steps on what lasts at most 1.6 s, and attention then has something to find.
    # No dropout, no SpecAugment: with them 3,000 steps underfit (72 % WER instead of 61 %).
    c.base = dict(
        select=dict(cohort=["male"]),
        short_steps=1000,
        steps=1400,
        batch_size=48,
        learning_rate=3e-3,
        warmup=100,
        weight_decay=0.01,
        readings=9000,
        word_strings=7500,
        string_words=(1, 4),
        repeat=3,
        warp_time=0.15,
        warp_freq=0.12,
        level=0.2,
    )
    c.runtime = dict(cpu_devices=2)
    c.embed = dict(layers=(0, 2, 3), pooling="mean_std")
    c.gate = dict(num_experts=4, hidden=0, steps=0, zero_start=True)
    c.mixture = dict(
        targets=("encoder/layers/*/*", "decoder/layers/*/*"), rank=4, alpha=8.0, shared_rank=0, routing="dense"
    )
    noise = dict(
        dropout=0.1,
        spec=True,
        time_masks=1,
        time_width=8,
        freq_masks=1,
        freq_width=10,
        warp_time=0.15,
        warp_freq=0.12,
        level=0.2,
    )
    c.experts = dict(steps=0)
    c.joint = dict(steps=120, learning_rate=2e-3, balance=0.0, z=0.0, gate_scale=1.0, voice_mix=True, **noise)
    c.adapters = dict(learning_rate=2e-3, kinds=("lora", "lora_total", "cohort", "full"), **noise)
    c.translate = dict(steps=0)
    if variant == "smoke":
        c.base.short_steps = c.base.steps = c.joint.steps = 3
        c.base.readings, c.base.word_strings = 20, 15
    return c
