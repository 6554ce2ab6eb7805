r"""A published model and one LoRA on a corpus of any number of rows: what `scale.py` makes, through all of a job.

moejax all --config tests/data/scale_job.py --workdir W --config.data.root=FOLDER/linked \
    --config.model.pretrained=tiny.en
"""

from ml_collections import ConfigDict


def get_config():
    c = ConfigDict()
    c.name = "scale"
    c.data = dict(source="arrayrecord", language="en", split="official", min_seconds=0.05)
    c.model = dict(times=0.0, buckets=(1.0, 7.0))
    c.gate = dict(num_experts=0)  # no mixture: nothing of 500,000 rows is embedded
    c.mixture = dict(rank=8, alpha=16.0)
    c.experts, c.joint = dict(steps=0), dict(steps=0)
    c.adapters = dict(
        **dict(kinds=("lora",), steps=200, batch_size=4, warmup=20, checkpoint_every=50),
        **dict(evals=1, dev_utterances=64, learning_rate=1e-3),
    )
    c.evaluate = dict(systems=("lora",), batch_size=64)
    c.translate = dict(backends=("none",))
    c.report = dict(draws=50, typical="")
    c.runtime = dict(workers=1, encoder_cache_bytes=0)
    return c
