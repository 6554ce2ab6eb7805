"""Stage `salmonn`: a language model that hears (`tasks.audio_llm`) learns this corpus' speech and its translation.

    salmonn        the checkpoint of the folder as published: nothing is learnt
    salmonn_lora   connector and one LoRA on q and v of the language model, from the checkpoint on, or fresh
    salmonn_moe    connector and a mixture of such LoRAs, weighed by the gate of the stage `gate`

Encoders and language model stay as they are. The three lessons are SALMONN's (Tang et al. 2024, arXiv 2310.13289) on
what a corpus of transcripts has: alignment transcribes, instruction transcribes and translates, activation goes through
the longer half of that with half of the experts' scale. The encoders' states are kept (`audio_states`), so a step is
connector and language model alone.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from moejax.cohorts.hearing import States
from moejax.data.collate import Collator, Utterances
from moejax.data.pipeline import BatchPlan, bucket_of
from moejax.errors import BadValue, NotThere
from moejax.nn import connectors, functional
from moejax.nn.connectors import ConnectorConfig
from moejax.runtime.files import read_json, write_json
from moejax.tasks import answers, asr, audio_llm
from moejax.text import languages
from moejax.train.params_file import save_params
from moejax.training import audio_states, fitting, gate_inputs, network, st
from moejax.work import fields
from moejax.work.context import Context, key_of
from moejax.work.fields import COUNT, SIZE, STEPS, Field, below
from moejax.work.folder import Work
from moejax.work.stage import Stage

KINDS = ("salmonn", "salmonn_lora", "salmonn_moe")
FILE = "params.safetensors"
PATTERNS = ("whisper/*", "llama/*", "*.pt", "*.pth")  # of the files in the folder
SECTIONS = {
    "salmonn": {
        "systems": Field(
            (),
            "Systems of a language model that hears; () for none.\n"
            "salmonn: the folder's checkpoint as published; salmonn_lora: connector and one LoRA, salmonn_moe:"
            " connector and a mixture behind the gate, both trained here.",
            choices=KINDS,
        ),
        "folder": Field(
            "",
            "Folder of the published files, as `moejax ask` takes it: whisper/, llama/, *.pt, *.pth.\n"
            "Without *.pth connector and LoRA begin fresh.",
            location=True,
        ),
        "alignment": Field(200, "Steps of the first lesson, which transcribes; 0 leaves it out.", limits=STEPS),
        "instruction": Field(200, "Steps of the second, which translates, too; 0 leaves it out.", limits=STEPS),
        "activation": Field(
            0,
            "Steps of the third, on long answers with half of the experts' scale; 0 leaves it out.\n"
            "What learnt it last also answers with half of the scale.",
            limits=STEPS,
        ),
        **fields.but(fitting.PLAIN, batch_size=8, learning_rate=3e-5, weight_decay=0.05, b2=0.999),
        "dropout": Field(0.0, "Share of activations of the connector that are dropped.", limits=(0.0, below(1))),
        "connector": Field(
            "qformer",
            "Connector where the folder has no checkpoint.\n"
            "qformer: SALMONN's, in its size; pooled: means of two states; stacked: ten states side by side (0.2 s).",
            choices=tuple(connectors.KINDS),
        ),
        "rank": Field(8, "Rank of the LoRA, and of each expert, where the folder has no checkpoint.", limits=SIZE),
        "balance": Field(0.01, "Weight of the even load of the experts of salmonn_moe.", limits=(0.0, 1000.0)),
        "gate_scale": Field(0.1, "Learning rate of the gate, as a multiple of salmonn.learning_rate."),
        "beams": Field(4, "Hypotheses of the search for an answer; 1: greedy.", limits=(1, 1000), later=True),
        "most": Field(answers.MOST, "Longest answer in tokens.", limits=COUNT, later=True),
    },
}
del SECTIONS["salmonn"]["steps"]  # each lesson has its own


def check(config) -> None:
    """BadValue for keys of the section that mean nothing together, or with the rest of the config."""
    own = config.salmonn
    if not own.systems:
        return
    if not own.folder:
        raise BadValue("salmonn.systems needs salmonn.folder: whisper/, llama/, *.pt and *.pth as published")
    if set(own.systems) != {"salmonn"} and not any(own[lesson] for lesson in audio_llm.LESSONS):
        raise BadValue("salmonn.alignment, salmonn.instruction and salmonn.activation are 0: nothing would be learnt")
    if config.translate.target not in languages.NAMES:
        raise BadValue(
            f"config key 'translate.target' is {config.translate.target!r}; salmonn.systems are asked for one of"
            f" {', '.join(languages.NAMES)}"
        )
    if "salmonn_moe" in own.systems and own.activation and config.gate.kind == "token":
        raise BadValue(
            "salmonn.activation lowers the experts' scale, which gate.kind = token does not let: set it to 0"
        )


def index_of(work: Work) -> dict:
    """{name: {target, rank, scale, trainable, utterances, taught_by}} of what is there; {} for nothing."""
    file = work.path("salmonn", "index.json")
    return read_json(file) if file.exists() else {}


def run(cfg, work) -> dict:
    """Writes W/salmonn/<name>/params.safetensors of each of salmonn.systems that learns, and index.json.

    Errors: NotThere and BadValue for a folder that lacks a part, an utterance longer than the model's window.
    """
    if not cfg.salmonn.systems:
        return {}
    context, index = Context(cfg, work), {}
    parts = parts_of(context)
    if "salmonn" in cfg.salmonn.systems and not parts.rank:
        raise BadValue(
            f"salmonn.systems has 'salmonn', the checkpoint as published; {cfg.salmonn.folder} has none (*.pth)"
        )
    everything = np.arange(len(context.corpus.manifest))
    bucket_of(context.corpus.samples, (window(parts),), context.corpus.manifest.strings("id", everything))
    states = None
    if set(cfg.salmonn.systems) != {"salmonn"}:
        states = audio_states.opened(context, parts, np.unique(gate_inputs.training_rows(context)).tolist())
    for name in cfg.salmonn.systems:
        entry = {"target": cfg.translate.target, "rank": parts.rank or cfg.salmonn.rank, "scale": 1.0}
        if name == "salmonn":
            size = sum(functional.count(parts.params[group]) for group in ("head", "expert"))
            index[name] = {**entry, "trainable": size, "utterances": 0, "taught_by": []}
        else:
            trained, more = _learn(context, parts, name, states)
            index[name] = {**entry, **more, "trainable": functional.count({g: trained[g] for g in _learns(name)})}
            save_params(work.path("salmonn", name, FILE), trained, index[name])
        write_json(work.path("salmonn", "index.json"), index)
    return {"systems": list(index), "content": audio_states.content(cfg.salmonn.folder, PATTERNS)}


def parts_of(context: Context) -> answers.Parts:
    """What the folder holds, in the types that the config asks for."""
    cfg = context.cfg
    fresh = ConnectorConfig(kind=cfg.salmonn.connector)
    return answers.parts(cfg.salmonn.folder, weights=context.weights, dtype=cfg.model.dtype, fresh=fresh)


def window(parts: answers.Parts) -> int:
    """Samples that are heard, always: 30 s of the published model."""
    return parts.config.samples


def question(task: str, target: str) -> str:
    """What is asked for a task: "transcribe" or "translate"."""
    if task == "transcribe":
        return audio_llm.QUESTIONS["transcribe"]
    return f"Listen to the speech and translate it into {languages.NAMES[target].title()}."


def built(context: Context, parts: answers.Parts, name: str, saved: dict | None = None, scale: float = 1.0):
    """`(graphdef, params, mixture, meta of the gate)` of a system: as it begins, or with what was `saved`. Every expert
    begins as the checkpoint's LoRA, so that the mixture begins as the published system. `scale`: of the experts.
    """
    cfg, have, shape, meta = context.cfg, parts.params, None, {"num_experts": 1}
    if name == "salmonn_moe":
        gate = network.gate_of(context.work)
        have, shape, meta = network.merge_groups(have, gate["params"]), network.gate_shape(gate), gate["meta"]
    rank, experts = parts.rank or cfg.salmonn.rank, meta["num_experts"]
    mixture = network.definition(
        cfg, experts, rank=rank, alpha=scale * answers.ALPHA, targets=answers.TARGETS, kind="lora", stabilised=False
    )
    mixture = dataclasses.replace(mixture, shared_rank=0, known_share=0.0)
    if "expert" in have:
        have = {**have, "expert": _copied(have["expert"], mixture)}
    if saved is not None:
        have = network.merge_groups(have, saved)
    make = audio_llm.build(parts.config, mixture=mixture, gate=shape, seed=cfg.seed)
    return *asr.init(make, have), mixture, meta


def _copied(lora: dict, mixture: asr.Mixture) -> dict:
    """The one LoRA as every expert: weighed by a route, which may sum to more than 1, they are that LoRA again."""
    total = float(mixture.uniform(1).weight_BX.sum())
    flat = functional.paths(lora)
    copies = {path: np.repeat(leaf, mixture.num_experts, 0) for path, leaf in flat.items()}
    return functional.nest({path: leaf / total if path.endswith("/B") else leaf for path, leaf in copies.items()})


def _learns(name: str) -> tuple[str, ...]:
    return ("head", "expert", "gate") if name == "salmonn_moe" else ("head", "expert")


def _learn(context: Context, parts: answers.Parts, name: str, states: States | None) -> tuple[dict, dict]:
    """(what was learnt, by groups; what is to be known of it)."""
    own, gated = context.cfg.salmonn, name == "salmonn_moe"
    graphdef, params, mixture, meta = built(context, parts, name)
    texts = st.translations(context)
    rows = gate_inputs.training_rows(context)
    translated = {row: texts[row] for row in sorted(set(rows.tolist())) if row in texts}
    context.work.log(f"  {name}: {len(translated)} of {len(set(rows.tolist()))} utterances have a translation")
    prior_E = np.asarray(meta["prior"], np.float32) if gated else None
    row = asr.Row(route="gate", balance=own.balance) if gated else asr.Row(route="label")
    lessons = [(at, lesson) for at, lesson in enumerate(audio_llm.LESSONS) if own[lesson]]
    for at, lesson in lessons:
        turns = turns_of(context, rows, {} if lesson == "alignment" else translated, longer=lesson == "activation")
        plan, fetch, most = material(context, parts, turns, gated, states)
        section = own.copy_and_resolve_references()
        with section.unlocked():
            section.steps = own[lesson]
        loss_fn = audio_llm.make_loss(
            graphdef,
            dataclasses.replace(row, dropout=own.dropout, scored=most),
            scale=audio_llm.LESSONS[lesson].scale,
            mixture=mixture,
            prior_E=prior_E,
            num_cohorts=len(context.corpus.cohorts),
        )
        key = jax.random.fold_in(key_of(context.cfg, "salmonn"), at)
        training = fitting.Training(
            "salmonn", loss_fn, _learns(name), section, plan=plan, fetch=fetch, sub=(name, lesson), key=key
        )
        params = fitting.train(context, training, params)
    kept = {group: params[group] for group in _learns(name)}
    if gated:
        kept["buffer"] = {"gate": params["buffer"]["gate"]}
    last = lessons[-1][1]
    taught = (
        sorted({source for _, source in translated.values()}) if set(dict(lessons).values()) != {"alignment"} else []
    )
    known = {"scale": audio_llm.LESSONS[last].scale, "utterances": len(set(rows.tolist())), "taught_by": taught}
    return kept, {**known, **(meta if gated else {})}


@dataclasses.dataclass(frozen=True)
class Turn:
    """A question about one row of the manifest, and its answer."""

    row: int
    question: str
    answer: str


def turns_of(context: Context, rows, translated: Mapping[int, tuple[str, str]], longer: bool = False) -> list[Turn]:
    """Those of an epoch: every row transcribed, and translated where there is a translation; `longer`: the half of
    them with the longest answers.
    """
    texts, target = context.corpus.manifest.column("text"), context.cfg.translate.target
    found = [Turn(row, question("transcribe", target), str(texts[row])) for row in rows.tolist()]
    asked = question("translate", target)
    found += [Turn(row, asked, translated[row][0]) for row in rows.tolist() if row in translated]
    if not longer:
        return found
    order = sorted(range(len(found)), key=lambda at: -len(found[at].answer))[: -(-len(found) // 2)]
    return [found[at] for at in sorted(order)]


def material(context: Context, parts: answers.Parts, turns: Sequence[Turn], gated: bool, states: States | None):
    """(plan, fetch, tokens of the longest answer) of these turns; without `states` batches have audio."""
    corpus, sizes = context.corpus, {"heard": heard(parts), "vocab_size": parts.config.vocab_size}
    given = {
        asked: audio_llm.prompt_ids(parts.tokenizer, audio_llm.prompt(asked), **sizes)
        for asked in dict.fromkeys(turn.question for turn in turns)
    }
    said = [audio_llm.example(parts.tokenizer, given[turn.question], turn.answer) for turn in turns]
    rows = np.array([turn.row for turn in turns])
    names = corpus.manifest.strings("id", rows)
    room = parts.config.llama.max_positions
    if long := [at for at, (ids, _) in enumerate(said) if len(ids) > room]:
        raise BadValue(
            f"utterance {names[long[0]]!r} has {len(said[long[0]][0])} tokens; the language model takes {room}"
        )
    plan = BatchPlan(
        lengths=corpus.samples[rows],
        buckets=(window(parts),),
        batch_size=context.cfg.salmonn.batch_size,
        seed=context.cfg.seed,
        multiple=context.multiple,
        names=names,
    )
    utterances = Utterances(
        audio=_Rows(corpus.audio, rows),
        samples=corpus.samples[rows],
        tokens=[ids for ids, _ in said],
        prefix=[first for _, first in said],
        eot=parts.tokenizer.eot,
        states=None if states is None else _Rows(states, rows),
        stride=window(parts) // parts.config.frames,
    )
    fetch = Collator(
        utterances,
        (window(parts),),
        labels=np.zeros(len(rows)),  # the one LoRA
        gate_in=gate_inputs.embeddings_of(context, rows) if gated else None,
        cohorts=corpus.cohort_index(rows),
    )
    return plan, fetch, max(len(ids) - first for ids, first in said)


def heard(parts: answers.Parts) -> int:
    """Vectors that a recording becomes."""
    return audio_llm.build(parts.config)().heard


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Samples, or states, of row number `rows[i]`; pickles for loader processes."""

    cache: Any  # [row] -> samples [S]; or, called with it, states
    rows: np.ndarray

    def __call__(self, index) -> np.ndarray:
        row = int(self.rows[int(index)])
        return np.asarray(self.cache(row) if callable(self.cache) else self.cache[row])


def _outside(cfg) -> str | None:
    """Size and time of the folder's files, which is cheap; errors where there is no such folder."""
    if not cfg.salmonn.systems:
        return None
    if not Path(cfg.salmonn.folder).is_dir():
        raise NotThere(f"salmonn.folder: no folder {cfg.salmonn.folder!r}")
    listed = audio_states.files(cfg.salmonn.folder, PATTERNS)
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in listed]
    return hashlib.blake2b(json.dumps(stats).encode(), digest_size=16).hexdigest()


STAGE = Stage(
    "salmonn",
    run,
    needs=("gate", "targets"),
    together=True,
    reseeded=True,
    switch="salmonn.systems",
    reads=("salmonn", "translate.target", "mixture", "gate", "model.weights", "model.dtype"),
    without=("salmonn.beams", "salmonn.most"),
    outside=_outside,
    sections=SECTIONS,
)
