"""A language model that hears, at toy size: the embedded corpus, a published tiny.en, and a LLaMA trained here.

    mkdir -p salmonn && ln -s TINY_EN salmonn/whisper          (TINY_EN: a folder of the published weights; base works)
    moejax describe --config configs/salmonn_toy.py --workdir runs/toy
    python -m moejax.training.chat_lines runs/toy lines.txt
    python -m moejax.training.small_llama lines.txt salmonn/llama --after ASSISTANT:
    moejax all --config configs/salmonn_toy.py --workdir runs/toy

The language model has 1.5 million parameters and has read lines of the embedded corpus' grammar alone, none of dev or
test; what the rows say of it says nothing of SALMONN's. Without a checkpoint (*.pth) and BEATs, connector, LoRA and
experts begin fresh, and there is no row `salmonn`. docs/audio_llm.md has what the rows are to be judged by.
`:smoke` is three steps a lesson.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"unknown variant {variant!r}; known: smoke")
    c = ConfigDict()
    c.name = "salmonn_toy"
    c.data = dict(
        source="builtin",
        split="per_speaker",
        split_fractions=(0.8, 0.05, 0.15),
        split_options=dict(prompts="disjoint"),
        options=dict(
            speakers_per_cohort=3, utterances_per_speaker=25, typical_speakers=3, typical_utterances=25, prompts=525
        ),
    )
    c.model = dict(pretrained="salmonn/whisper", weights="bfloat16", times=1.0)
    c.embed = dict(layers=(-1,), pooling="mean_std")
    c.gate = dict(num_experts=4, hidden=0, steps=0, zero_start=True)
    c.mixture = dict(targets=("decoder/layers/*/*",), rank=4, alpha=8.0, shared_rank=0, routing="dense")
    c.experts = dict(steps=0)
    c.joint = dict(steps=0)  # the mixture here is the language model's
    c.adapters = dict(steps=20, learning_rate=1e-3, batch_size=16, warmup=8, evals=1, kinds=("lora_total",))
    c.salmonn = dict(
        folder="salmonn",
        systems=("salmonn_lora", "salmonn_moe"),
        connector="stacked",  # 0.2 s a vector, as the lines of the language model have it
        alignment=150,
        instruction=300,
        activation=50,
        batch_size=16,
        learning_rate=2e-3,
        warmup=20,
        weight_decay=0.01,
        b2=0.98,
        gate_scale=1.0,
        most=24,
    )
    c.evaluate = dict(batch_size=16, systems=("base", "lora_total", "salmonn_lora", "salmonn_moe"))
    c.translate = dict(backends=("offline",), target="de", steps=150, layers=1, extra_pairs=3000)
    c.report = dict(normalizer="english", main=c.evaluate.systems)
    if variant == "smoke":
        c.name = "salmonn_toy-smoke"
        c.adapters.steps = 3
        c.salmonn.alignment = c.salmonn.instruction = c.salmonn.activation = 3
        c.translate.steps = 3
    return c
