"""Translation learnt beside recognition: one LoRA, or one mixture, that writes what is said and its translation.

    <|startoftranscript|><|en|><|transcribe|> what was said <|endoftext|>
    <|startoftranscript|><|de|><|translate|> was gesagt wurde <|endoftext|>

A published Whisper translates into English alone. Here `lora_total` and the mixture of the stage joint are trained
again on both tasks at once, with a share of translations; the language's token says what is wanted (English-only
vocabularies have it too). The gate is told the task, so the route may depend on it. Windows with times are translated
as well (`training.timed`), so that long recordings are read as ever.
"""

from collections.abc import Mapping

import numpy as np

from moejax.errors import BadValue
from moejax.nn import functional
from moejax.runtime.files import read_json, read_jsonl, write_json
from moejax.tasks import asr
from moejax.train.params_file import load_params, save_params
from moejax.training import dev, encoder_states, fitting, gate_inputs, network, timed
from moejax.work import fields
from moejax.work.context import Context
from moejax.work.fields import Field, above, below
from moejax.work.folder import Work
from moejax.work.stage import Stage

KINDS = ("lora_st", "moe_st")
MADE = ("targets", "translations.jsonl")  # what a translator made of the training texts

SECTIONS = {
    "st": {
        **fields.but(fitting.TRAIN, steps=200, learning_rate=1e-3),
        **{name: fitting.DEV[name] for name in ("evals", "dev_utterances", "keep")},
        "kinds": Field(
            (),
            "Systems that learn to translate speech into translate.target; () for none.\n"
            "lora_st: lora_total, trained again on both tasks; moe_st: the mixture of the stage joint, trained again.",
            choices=KINDS,
        ),
        "targets": Field(
            "",
            "Who translates the texts of train and dev that have no translation.\n"
            '"": nobody, they are learnt as they were said alone; deepl, deepl_custom, ctranslate2: as in'
            " translate.backends, by the keys of that section.",
            choices=("", "deepl", "deepl_custom", "ctranslate2"),
        ),
        "share": Field(0.5, "Share of the utterances of a batch that are translated.", limits=(above(0), below(1))),
        "gate_scale": Field(0.1, "Learning rate of the gate, as a multiple of st.learning_rate."),
    },
}


def index_of(work: Work) -> dict:
    """{name: {target, rank, trainable, utterances}} of what was trained here; {} for none."""
    file = work.path("st", "index.json")
    return read_json(file) if file.exists() else {}


def run(cfg, work) -> dict:
    """Writes W/st/<name>/params.safetensors of each of st.kinds, and index.json. Errors: BadValue where no training
    utterance has a translation, or the vocabulary cannot name the language.
    """
    if not cfg.st.kinds:
        return {}
    context, index = Context(cfg, work), {}
    target = cfg.translate.target
    context.prefix(target)
    texts, makers = _fitting(context, translations(context))
    rows = gate_inputs.training_rows(context)
    translated = [row for row in rows.tolist() if texts.get(row)]
    if not translated:
        raise BadValue(
            f"st.kinds trains on translations, and no utterance of train has one into {target!r}: give the corpus a"
            " column 'translation', or name a translator in st.targets"
        )
    work.log(f"  {len(set(translated))} of {len(set(rows.tolist()))} utterances of train have a translation")
    for name in cfg.st.kinds:
        trained, entry = _lora(context, name, rows, texts) if name == "lora_st" else _moe(context, name, rows, texts)
        save_params(work.path("st", name, "params.safetensors"), trained, entry)
        taught = sorted({makers[row] for row in translated})
        index[name] = {"target": target, "utterances": len(set(translated)), "taught_by": taught, **entry}
        write_json(work.path("st", "index.json"), index)
    return index


def translations(context: Context) -> dict[int, tuple[str, str]]:
    """{row of the manifest: (its translation, who made it)}, the corpus' own, and of train and dev also what a
    translator made.
    """
    column = context.corpus.manifest.column
    texts = zip(column("translation"), column("translation_source"), strict=True)
    found = {row: (str(text), str(source)) for row, (text, source) in enumerate(texts) if str(text).strip()}
    made = context.work.path(*MADE)
    if made.exists():
        place = {str(name): row for row, name in enumerate(column("id"))}
        lines = [line for line in read_jsonl(made) if line["id"] in place]
        found |= {place[line["id"]]: (line["translation"], line["translation_source"]) for line in lines}
    return found


def _fitting(context: Context, found: Mapping[int, tuple[str, str]]) -> tuple[dict[int, str], dict[int, str]]:
    """({row: translation}, {row: who made it}) of those that the decoder has room for."""
    tokenizer, room = context.base.tokenizer, context.base.config.max_target_positions
    before = len(context.prefix(context.cfg.translate.target))
    kept = {row: one for row, one in found.items() if before + len(tokenizer.encode(one[0])) <= room}
    if len(kept) < len(found):
        context.work.log(f"  {len(found) - len(kept)} translations are left out: the decoder has {room} positions")
    return {row: text for row, (text, _) in kept.items()}, {row: source for row, (_, source) in kept.items()}


def _lora(context: Context, name: str, rows, texts):
    """`lora_total` again, or a LoRA of its size where there is none."""
    rank = network.gate_of(context.work)["meta"]["num_experts"] * context.cfg.mixture.rank
    mixture = network.definition(context.cfg, 1, rank=rank + context.cfg.mixture.shared_rank, shared_rank=0)
    before = context.work.path("adapters", "lora_total", "params.safetensors")
    graphdef, params = network.with_experts(context, mixture, load_params(before)[0] if before.exists() else None)
    context.work.log(f"  {name} begins {'as lora_total' if before.exists() else 'at zero: no lora_total was trained'}")
    row = asr.Row(route="label", frozen=True, **fitting.row_options(context.cfg.st))
    params = _train(context, name, rows, texts, graphdef, params, mixture, row, ("expert",))
    return {"expert": params["expert"]}, {"rank": mixture.rank, "trainable": functional.count(params["expert"])}


def _moe(context: Context, name: str, rows, texts):
    """The mixture again. As the stage joint left it, its gate is told the task from now on."""
    graphdef, params, mixture, meta = network.minding_task(context)
    joint = context.cfg.joint
    terms = {term: joint[term] for term in ("balance", "z", "diversity", "gate_dropout", "voice_mix")}
    row = asr.Row(route="gate", frozen=True, **terms, **fitting.row_options(context.cfg.st))
    prior_E = np.asarray(meta["prior"], np.float32)
    params = _train(context, name, rows, texts, graphdef, params, mixture, row, ("expert", "gate"), prior_E)
    size = sum(functional.count(params[group]) for group in ("expert", "gate"))
    kept = {"expert": params["expert"], "gate": params["gate"], "buffer": {"gate": params["buffer"]["gate"]}}
    return kept, {**meta, "rank": mixture.rank, "trainable": size}


def _train(context: Context, name, rows, texts, graphdef, params, mixture, row, trainable, prior_E=None):
    section, kept = context.cfg.st, encoder_states.why_not(row, mixture) is None
    loss_fn = asr.make_loss(graphdef, row, mixture=mixture, prior_E=prior_E, num_cohorts=len(context.corpus.cohorts))
    labels_N = np.zeros(len(context.corpus.manifest), np.int64)  # the one expert of a LoRA
    if row.route == "gate":
        labels_N = gate_inputs.clusters_of(context)["label"]
    both = Both(context, texts, labels_N, gate=row.route == "gate", mixed=row.voice_mix)
    plan, fetch = both.material(rows, section, kept)
    judge = dev.judge(context, graphdef, mixture, row.route, section, labels_N, kept, both.alternating)
    return fitting.train(
        context,
        fitting.Training(
            "st",
            loss_fn,
            trainable,
            section,
            plan=plan,
            fetch=fetch,
            sub=(name,),
            eval_fn=judge,
        ),
        params,
    )


class Both:
    """Utterances of which some are written as said and some translated."""

    def __init__(self, context: Context, texts: Mapping[int, str], labels_N, *, gate: bool, mixed: bool):
        """`texts`: translations by rows of the manifest, of which `labels_N` are the experts of known routes; `gate`:
        what a gate hears is wanted, with `mixed` the speaker's mean beside the own.
        """
        self.context, self.texts, self.labels_N = context, texts, labels_N
        self.gate, self.mixed = gate, mixed
        self.target = context.cfg.translate.target

    def written(self, rows, told) -> list[tuple[list[int], str]]:
        """(prefix, text) of each row; `told`: 1 where it is translated."""
        said, translated = self.context.prefix(), self.context.prefix(self.target)
        own = self.context.corpus.manifest.column("text")
        return [
            (translated, self.texts[int(row)]) if one else (said, str(own[row]))
            for row, one in zip(rows, told, strict=True)
        ]

    def heard(self, rows, told, mixed: bool) -> np.ndarray | None:
        """What the gate hears of each row, the task at the end of every part."""
        if not self.gate:
            return None
        parts = [gate_inputs.embeddings_of(self.context, rows)]
        parts += [gate_inputs.speaker_means(self.context, rows)] if mixed else []
        told_N1 = np.asarray(told, np.float32)[:, None]
        return np.concatenate([one for part in parts for one in (part, told_N1)], axis=1)

    def material(self, rows, section, kept: bool):
        """`(plan, fetch)` as `timed.material` makes them, with a share of translations among utterances and windows."""
        context = self.context
        every, told = self._shared(rows)
        plan = fitting.speech_plan(context, every, section)
        states = encoder_states.opened(context) if kept else None
        heard = self.heard(every, told, self.mixed)
        fetch = context.collator(every, self.labels_N[every], heard, states, self.written(every, told))
        windows = timed.windows(context) if context.base.times else None
        said = windows.of(rows) if windows else None
        if windows is None or not said:
            return plan, fetch
        tokenizer, room = context.base.tokenizer.into(self.target), context.base.config.max_target_positions
        translated = said.restated({int(row): self.texts.get(int(row), "") for row in rows}, tokenizer, room)
        if not translated and context.base.times >= 1:
            raise BadValue(
                "st.kinds: no window has utterances that are all translated, and model.times is 1, so nothing else is"
                " learnt; set it below 1, or have st.targets translate the rest"
            )
        joined = said.beside(translated, self._count(len(said)))
        heard_in = len({row for members in translated.members for row in members})
        context.work.log(f"  {len(translated)} windows, of {heard_in} utterances, are learnt in translation")
        told_W = np.arange(len(joined)) >= len(said)
        heard_W = None
        if self.gate:
            of_row = dict(zip(every.tolist(), heard, strict=True)) if heard is not None else {}
            means = [np.mean([of_row[row] for row in members], axis=0) for members in joined.members]
            heard_W = np.stack(means)
            width = heard_W.shape[1] // (2 if self.mixed else 1)
            heard_W[:, : width - 1] = gate_inputs.of_windows(context, windows)[timed.numbers(windows, joined)]
            heard_W[:, width - 1 :: width] = told_W[:, None]
        labels_W = self.labels_N[[members[0] for members in joined.members]]
        return timed.among(context, plan, fetch, windows, joined, labels=labels_W, gate_in=heard_W, kept=kept)

    def alternating(self, rows):
        """`(rows, gate_in, written)` of dev: every second one that has a translation is translated."""
        told = [number % 2 and bool(self.texts.get(int(row))) for number, row in enumerate(rows)]
        return rows, self.heard(rows, told, False), self.written(rows, told)

    def _shared(self, rows):
        """Rows as said, and behind them those that are translated, as often as the share wants; which are which."""
        own = np.array([row for row in rows.tolist() if self.texts.get(row)])
        own = own[np.random.default_rng(self.context.cfg.seed).permutation(len(own))]  # not one cohort's alone
        translated = np.resize(own, self._count(len(rows)))
        return np.concatenate([rows, translated]), np.arange(len(rows) + len(translated)) >= len(rows)

    def _count(self, said: int) -> int:
        share = self.context.cfg.st.share
        return max(round(said * share / (1 - share)), 1)


STAGE = Stage(
    "st",
    run,
    needs=("targets", "joint", "adapters"),
    together=True,
    reseeded=True,
    switch="st.kinds",
    reads=("st", "translate.target", "joint", "gate"),
    sections=SECTIONS,
)
