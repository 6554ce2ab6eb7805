"""The whole job on the embedded corpus: synthesised speakers, six kinds of atypical speech, English with German references.

    bash launch/quickstart.sh            (this file, at most 8 minutes on 2 cores)
    bash launch/quickstart.sh --fast     (configs/quickstart.py:fast, at most 3 minutes)

The base knows typical speakers only; the mixture and all adapters see every cohort. Speakers stand in all parts, their recordings in one each.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "fast"):
        raise ValueError(f"unknown variant {variant!r}; known: fast")
    fast = variant == "fast"
    c = ConfigDict()
    c.name = "quickstart"
    c.data = dict(
        source="builtin",
        split="per_speaker",
        split_options=dict(prompts="disjoint"),  # no test sentence was ever trained on
        options=dict(
            speakers_per_cohort=3,
            utterances_per_speaker=100,
            typical_speakers=8,
            typical_utterances=200 if fast else 450,
            prompts=3400 if fast else 5400,
        ),
    )
    c.model = dict(size="micro", vocab_size=1000, buckets=(5.2,) if fast else (2.6, 5.2))
    c.base = dict(
        select=dict(cohort=["typical"]),
        steps=250 if fast else 700, batch_size=32, learning_rate=3e-3, warmup=50, weight_decay=0.01,
    )  # fmt: skip
    c.runtime = dict(cpu_devices=2)
    c.embed = dict(layers=(0, 1, 2), pooling="mean_std")
    c.gate = dict(num_experts=8, hidden=64, temperature=2.0)
    c.mixture = dict(
        targets=("encoder/layers/*/*", "decoder/layers/*/*"), rank=4, alpha=8.0, shared_rank=4, routing="dense"
    )
    c.experts = dict(steps=60 if fast else 150, learning_rate=5e-3)
    c.joint = dict(steps=60 if fast else 250, learning_rate=5e-3, balance=0.01)
    c.adapters = dict(learning_rate=5e-3)
    return c
