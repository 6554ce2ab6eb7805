r"""Whisper large-v2 on a corpus of one's own, on GPUs: 10 experts of rank 8 in the decoder, a gate of width 512.

    moejax plan --config configs/whisper_large_v2.py --devices 4
    sbatch launch/slurm.sh configs/whisper_large_v2.py runs/large \
        --config.data.root=DATA --config.model.pretrained=WEIGHTS

DATA is a folder of audio with a metadata.csv (see data.columns); WEIGHTS is a Hugging Face folder of
openai/whisper-large-v2 (config.json, model.safetensors, tokenizer files). `moejax plan` needs neither. Time and result:
not run yet with the published weights. `:smoke` is the same network with three steps a stage and batches of two (on
one or two devices): does it fit, does it resume, does every stage find its input.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: smoke")
    c = ConfigDict()
    c.name = "whisper_large_v2"
    c.data = dict(source="folder", split="per_speaker", sample_share=0.2)
    c.model = dict(
        pretrained="",  # given on the command line
        size="large-v2",  # what `plan` builds without the folder
        dtype="bfloat16",
        buckets=(30.0,),  # the published models were trained on audio padded to 30 s
    )
    c.embed = dict(layers=(-1,), pooling="mean", trim_silence=True, batch_size=64)
    c.cluster = dict(level="utterance", method="hdbscan", layers=(), remove=(), dims=20, discriminant="none")
    c.gate = dict(num_experts=10, hidden=512, steps=1000, batch_size=256, learning_rate=1e-3)
    c.mixture = dict(
        targets=("decoder/layers/*/*attn/[qv]", "decoder/layers/*/fc?"), rank=8, alpha=16.0, routing="topk", top_k=2
    )
    every = dict(warmup=200, checkpoint_every=250, log_every=20)
    c.experts = dict(steps=2000, batch_size=32, learning_rate=1e-3, **every)
    c.joint = dict(steps=6000, batch_size=64, learning_rate=5e-4, balance=0.01, z=1e-3, **every)
    c.adapters = dict(batch_size=64, learning_rate=1e-3, **every)
    c.evaluate = dict(batch_size=64)
    c.translate = dict(backends=("none",))  # deepl, with DEEPL_AUTH_KEY in the environment
    c.report = dict(normalizer="english")
    c.mesh = dict(data=-1, fsdp=1, expert=1, model=1)
    c.runtime = dict(workers=8, audio_cache_bytes=0)
    if variant == "smoke":
        c.gate.steps = c.experts.steps = c.joint.steps = 3
        c.gate.warmup = c.experts.warmup = c.joint.warmup = c.adapters.warmup = 1
        for section in (c.embed, c.experts, c.joint, c.adapters, c.evaluate):
            section.batch_size = 2
    return c
