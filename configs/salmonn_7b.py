r"""SALMONN with Vicuna 7B beside the mixture on Whisper: as published, with one LoRA, and with experts.

    moejax plan --audio_llm 7b --devices 4
    moejax all --config configs/salmonn_7b.py --workdir runs/salmonn --config.data.root=DATA

DATA is a folder of audio with a metadata.csv that has a column `translation` (see data.columns), and ./salmonn one of
the published files, as they are: whisper/ (openai/whisper-large-v2), llama/ (lmsys/vicuna-7b-v1.1), BEATs (*.pt) and
salmonn_7b_v0.pth. The base of the other rows is the same Whisper. Time and result: not run yet with the published
weights; a test runs it with small files of the same layout. `:smoke` is three steps a lesson and batches of two.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: smoke")
    c = ConfigDict()
    c.name = "salmonn_7b"
    c.data = dict(source="folder", split="per_speaker", sample_share=0.2)
    c.model = dict(pretrained="salmonn/whisper", dtype="bfloat16", weights="bfloat16")
    c.embed = dict(layers=(-1,), pooling="mean", trim_silence=True)
    c.gate = dict(num_experts=4, hidden=0)
    c.mixture = dict(targets=("decoder/layers/*/*",), rank=8, alpha=16.0, shared_rank=0, routing="dense")
    c.adapters = dict(kinds=("lora_total",))
    c.salmonn = dict(
        folder="salmonn",
        systems=("salmonn", "salmonn_lora", "salmonn_moe"),
        alignment=1000,
        instruction=2000,
        activation=100,
        batch_size=8,
        learning_rate=3e-5,
        warmup=300,
    )
    c.evaluate = dict(batch_size=8, systems=("base", "lora_total", "moe", "salmonn", "salmonn_lora", "salmonn_moe"))
    c.translate = dict(backends=("offline",), target="de")
    c.report = dict(normalizer="english", main=c.evaluate.systems)
    c.mesh = dict(data=1, fsdp=-1, expert=1, model=1)
    c.runtime = dict(workers=8, audio_cache_bytes=0)
    if variant == "smoke":
        c.salmonn.alignment = c.salmonn.instruction = c.salmonn.activation = 3
        c.gate.steps = 3
        c.experts = dict(steps=3, batch_size=2)
        c.joint = dict(steps=3, batch_size=2)
        for section in (c.adapters, c.salmonn, c.evaluate):
            section.batch_size = 2
    return c
