r"""German fine-tuning of the published small: the whole network, and one LoRA, beside the model as published.

    moejax pack cv-corpus/de/train.tsv ...        (docs/scale.md; or as it lies, as here)
    moejax all --config configs/whisper_small_de.py --workdir runs/small-de --config.data.root=cv-corpus/de

What went wrong when this was tried by hand on 496,000 rows: chunks in order, 4 % of them seen; a model kept when it did
better on 250 utterances drawn anew each time, which cannot tell two points of word error rate; no gain in the end.
Here the order of an epoch is a permutation of all rows, dev is the same 2,000 utterances each time and scored in pairs,
and the log says what training was worth against the model as published, with its interval. W/*/metrics.jsonl has step,
utterances seen, hours and `eval/wer`; the report draws them. `:smoke` is three steps of the same.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: smoke")
    c = ConfigDict()
    c.name = "whisper_small_de"
    c.data = dict(source="commonvoice", root="data/cv-corpus/de", language="de", split="official", sample_share=0.01)
    c.model = dict(pretrained="small", dtype="bfloat16", times=0.2)
    # No mixture here: what is asked is what fine-tuning is worth
    c.gate = dict(num_experts=0)
    c.mixture = dict(targets=("*/layers/*/*",), rank=32, alpha=64.0, shared_rank=0)
    c.experts = dict(steps=0)
    c.joint = dict(steps=0)
    c.adapters = dict(
        kinds=("full", "lora"),
        steps=8000,
        batch_size=64,
        warmup=500,
        learning_rate=5e-4,
        full_learning_rate=1e-5,
        spec=True,
        checkpoint_every=500,
        evals=16,
        best="wer",
        keep="best",
    )
    c.evaluate = dict(batch_size=64, systems=("base", "full", "lora"))
    c.translate = dict(backends=("none",))
    c.report = dict(normalizer="basic")
    c.runtime = dict(workers=8, audio_cache_bytes=0, encoder_cache_bytes=0)
    if variant == "smoke":
        c.adapters.steps, c.adapters.warmup, c.adapters.evals = 3, 1, 1
        for section in (c.adapters, c.evaluate):
            section.batch_size = 2
        c.runtime.workers = 0
    return c
