"""The base: a pretrained Whisper as it is, fine-tuned in full, or a micro Whisper trained from scratch on part of the
corpus.
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.convert import find, hf_whisper, whisper_folder
from moejax.data.manifest import COLUMNS
from moejax.data.pipeline import BatchPlan
from moejax.decode import alignment_heads
from moejax.errors import BadValue, NotThere
from moejax.nn import functional, quantize, whisper
from moejax.runtime import processes
from moejax.runtime.files import write_json
from moejax.speech import synthetic
from moejax.tasks import asr
from moejax.text.tokenizer import Tokenizer
from moejax.training import fitting, material, packed, timed
from moejax.work.context import Context
from moejax.work.fields import STEPS, Field
from moejax.work.stage import Stage


def _string_words(key, words):
    if words and (len(words) != 2 or words[0] > words[1]):
        raise BadValue(f"config key {key!r} is {tuple(words)}; it takes (fewest, most), or () for as many as texts")


def _select(key, columns):
    """Names of text columns of the manifest, and lists of values in them."""
    for name, wanted in columns.items():
        texts = [column for column, kind in COLUMNS.items() if str(kind) == "string"]
        if name not in texts:
            raise BadValue(f"config key {key!r} names the column {name!r}; known: {', '.join(texts)}")
        values = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(values, list | tuple) or not values or not all(isinstance(value, str) for value in values):
            raise BadValue(f"config key '{key}.{name}' is {wanted!r}; it takes a list of text")


SECTIONS = {
    "model": {
        "pretrained": Field(
            "",
            'Folder or name of a published Whisper; "" trains a micro Whisper from scratch.\n'
            "Folders are Hugging Face's or faster-whisper's; a relative path is relative to where the command runs.\n"
            "Names are those that `moejax models` lists, such as small, and ids of the Hugging Face hub.",
            location=True,
        ),
        "size": Field(
            "micro", "Size of the network, used where model.pretrained is empty.", choices=tuple(whisper.SIZES)
        ),
        "sizes": Field(
            {},
            "What to change in that size, such as {'encoder_layers': 4, 'hop': 160}.\n"
            "The keys are the fields of moejax.nn.whisper.WhisperConfig.",
        ),
        "vocabulary": Field(
            "", 'Folder of a published vocabulary (multilingual.tiktoken); "" learns one from the corpus.'
        ),
        "vocab_size": Field(
            600, "Most entries of the vocabulary that is learnt from the corpus.", limits=(256, 1_000_000)
        ),
        "dtype": Field(
            "float32",
            "Number format of the backbone's activations; bfloat16 suits accelerators.",
            choices=("float32", "bfloat16", "float16"),
        ),
        "weights": Field(
            "",
            'Number format in which the frozen backbone is kept from the stage embed on; "" is model.dtype.\n'
            "The base stage itself trains and writes float32.",
            choices=("", *quantize.KINDS),
        ),
        "buckets": Field(
            (2.0, 4.0, 6.0),
            "Audio lengths in seconds to which utterances are padded: one compilation each.\n"
            "A pretrained Whisper takes (30.0,), whatever stands here, unless model.times is 0.",
            limits=(0.01, 30.0),
            needed=True,
        ),
        "times": Field(
            0.25,
            "Share of training batches that are joined windows with times, where model.pretrained writes times.\n"
            "Such a base hears 30 s everywhere, whatever model.buckets say; all systems then read long audio as it does"
            " and are evaluated so. 0: utterances alone, in model.buckets, decoded without times. Others ignore this.",
            limits=(0.0, 1.0),
            later=True,
        ),
        "enrolled": Field(
            0.0,
            "Share of the joined windows that teach to read an enrolled speaker, where model.times is above 0.\n"
            "Up to five utterances of the speaker are given with their texts, one more is learnt, as --enroll reads.",
            limits=(0.0, 1.0),
            later=True,
        ),
    },
    "base": {
        **fitting.TRAIN,
        "select": Field(
            {},
            "Values of manifest columns that the base is trained on, such as {'cohort': ['typical']}; {} for all of"
            " train.",
            rule=_select,
        ),
        "ctc": Field(0.0, "Weight of an auxiliary CTC loss on the encoder, from scratch only.", limits=(0.0, 1000.0)),
        "readings": Field(
            0, "Synthesised readings of the training texts that are mixed in (needs the quickstart extra)."
        ),
        "word_strings": Field(0, "Of these readings, how many read random strings of training words instead."),
        "string_words": Field(
            (),
            "Fewest and most words of such a string; () as many as the training texts have.\n"
            "Attention finds its way through short strings first.",
            kind=int,
            limits=(1, 1000),
            rule=_string_words,
            takes="(fewest, most): two whole numbers at least 1 and at most 1000, or ()",
        ),
        "repeat": Field(1, "How often the real part stands in an epoch beside the readings.", limits=(1, 1_000_000)),
        "short_steps": Field(
            0,
            "Steps before all others, on what fits the smallest bucket.\n"
            "Sounds are learnt there before attention has to find them, in cheap steps.",
            limits=STEPS,
        ),
        "finetune_steps": Field(
            0,
            "Steps on the real part alone, after base.steps on the mix, at a tenth of the learning rate.",
            limits=STEPS,
        ),
        "timestamps": Field(False, "Whether targets have times; needs windows (base.pack.seconds)."),
        "pack": packed.SECTION,
    },
}


def pretrained(cfg) -> str:
    """The absolute path of `model.pretrained`; "" for none. A relative one is relative to where the command runs; a
    name is looked up, and downloaded if need be. Errors: NotThere.
    """
    if not cfg.model.pretrained:
        return ""
    try:
        return os.path.abspath(find.model(cfg.model.pretrained))
    except NotThere as error:
        raise NotThere(f"model.pretrained: {error}") from error


def inputs(cfg) -> str:
    """A digest that changes when the pretrained weights do: size and time of their files. Errors: no such folder."""
    folder = pretrained(cfg)
    if not folder:
        return ""
    if not os.path.isdir(folder):
        raise NotThere(f"model.pretrained: no folder {folder!r}")
    seen = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in _files(folder)]
    return hashlib.blake2b(json.dumps(seen).encode(), digest_size=16).hexdigest()


def content(folder) -> str:
    """A digest of the bytes of a model folder, wherever it lies (a second for each GB)."""
    digest = hashlib.blake2b(digest_size=16)
    for path in _files(folder):
        with open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _files(folder) -> list[Path]:
    """What makes a folder a model: settings, vocabulary, weights."""
    kinds, weights = (".json", ".txt", ".safetensors"), whisper_folder.WEIGHTS
    return sorted(path for path in Path(folder).iterdir() if path.suffix in kinds or path.name in weights)


def run(cfg, work) -> dict:
    """Writes W/base/model (a Hugging Face folder) and W/base/model.json, which says where the base is."""
    context = Context(cfg, work)
    published = pretrained(cfg)
    if published and not (cfg.base.steps or cfg.base.pack.seconds):
        config, _ = whisper_folder.load(published)
        times = times_of(cfg, published, config, Tokenizer.from_hf_folder(published))
        _point(cfg, work, published, times)
        return {"pretrained": published, "d_model": config.d_model, "content": _marked(content(published), times)}
    rows = context.corpus.rows("train", cfg.base.select.to_dict())
    texts = [str(t) for t in context.corpus.manifest.column("text")[rows]]
    readings = _readings(cfg, work, texts)
    if cfg.model.pretrained:
        config, params = whisper_folder.load(published)
        tokenizer = Tokenizer.from_hf_folder(published)
    else:
        # The sample of all training texts decides the vocabulary: later stages must be able to write every word of
        # theirs.
        known = [str(t) for t in context.corpus.manifest.column("text")[context.corpus.rows("train")]]
        tokenizer = _vocabulary(cfg, known)
        config, params = from_scratch(cfg), {}
        config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
        _check_room(context, tokenizer, config.max_target_positions)
    config, times = dataclasses.replace(config, dtype=cfg.model.dtype), times_of(cfg, published, config, tokenizer)
    sources = material.Sources(context, rows, readings)
    if cfg.base.pack.seconds:
        packed.check(cfg, config)
        params = packed.fit(context, config, params, tokenizer, sources)
    else:
        params = _fit(context, config, params, material.Material(context, config, tokenizer, sources, times))
    if not processes.first():
        return {}
    hf_whisper.save(
        work.path("base", "model"),
        config,
        {g: params[g] for g in ("backbone", "buffer")},
        tokenizer=tokenizer,
        generation=generation(published, config) if cfg.model.pretrained else None,
    )
    _point(cfg, work, "base/model", times)
    return {
        "utterances": len(rows),
        "readings": len(readings),
        "parameters": functional.count(params["backbone"]),
        "content": _marked(content(work.path("base", "model")), times),
    }


def times_of(cfg, folder, config, tokenizer) -> float:
    """`model.times` where the base is a published model that writes times and keeps doing so in its own training."""
    if not cfg.model.pretrained or (cfg.base.pack.seconds and not cfg.base.timestamps):
        return 0.0
    return cfg.model.times if whisper_folder.writes_times(folder, config, tokenizer) else 0.0


def _point(cfg, work, path, times) -> None:
    """Says where the base is, and how it is used: workdirs of the time before there were times go on without them."""
    used = {"times": times, "enrolled": cfg.model.enrolled if times else 0.0}
    used = {name: share for name, share in used.items() if share}
    write_json(work.path("base", "model.json"), {"path": path, **used})


def _marked(content: str, times: float) -> str:
    """The content as later stages know it: with times they train on other material."""
    return f"{content} with times" if times else content


def generation(folder, config) -> dict:
    """What a folder says about generation, and a model made from it should say too: suppressed tokens, alignment heads
    (of a published checkpoint older than that entry: those of its size).
    """
    heads = None if whisper_folder.settings(folder) else alignment_heads.of_size(config)
    return ({"alignment_heads": heads} if heads else {}) | whisper_folder.generation(folder)


def from_scratch(cfg) -> whisper.WhisperConfig:
    """The network of `model.size` and `model.sizes`. Errors: a field that cannot have such a value."""
    return dataclasses.replace(whisper.SIZES[cfg.model.size], **cfg.model.sizes.to_dict())


def _readings(cfg, work, texts) -> list[tuple[str, str]]:
    """(text, path) of synthesised readings of the training part's own texts and words; never of another part's."""
    section = cfg.base
    if not section.readings:
        return []
    random = np.random.default_rng(cfg.seed)
    words = sorted({word for text in texts for word in text.split()})
    low, high = section.string_words or (0, 0)
    lengths = list(range(low, high + 1)) if high else [len(text.split()) for text in texts]
    strings = [" ".join(random.choice(words, size=random.choice(lengths))) for _ in range(section.word_strings)]
    repeated = [texts[i % len(texts)] for i in range(section.readings - len(strings))]
    wanted = repeated + strings
    work.log(f"  synthesising {len(wanted)} readings of the training texts ({len(strings)} of random word strings)")
    cache = cfg.data.cache_dir or None
    return [(text, str(path)) for text, path in synthetic.readings(wanted, len(wanted), cfg.seed, cache)]


def _vocabulary(cfg, texts) -> Tokenizer:
    """The published vocabulary of `model.vocabulary`, or one learnt from the texts, with times if targets have any."""
    if cfg.model.vocabulary:
        return Tokenizer.published(cfg.model.vocabulary)
    times = 30.0 if cfg.base.timestamps else 0.0
    return Tokenizer.train(texts, cfg.model.vocab_size, languages=(cfg.data.language,), timestamps_seconds=times)


def _check_room(context, tokenizer, limit):
    """Refuses transcripts, of any part, that do not fit with the vocabulary that was just learnt: stages after this one
    would end at them.
    """
    column, prefix = context.corpus.manifest.column, tokenizer.prefix(context.cfg.data.language, "transcribe")
    needs = [len(prefix) + len(tokenizer.encode(str(text))) for text in column("text")]
    if long := [(name, count) for name, count in zip(column("id"), needs, strict=True) if count > limit]:
        raise BadValue(
            f"{len(long)} of {len(needs)} transcripts do not fit the decoder, the first of utterance {long[0][0]!r}"
            f" with {long[0][1]} tokens, where the model takes {limit}: leave them out, or raise model.vocab_size or"
            " model.sizes.max_target_positions"
        )


def _fit(context, config, params, utterances):
    """`short_steps` on the shortest of the mix, `steps` on all of it, `finetune_steps` on the real part alone."""
    section = context.cfg.base
    ctc = section.ctc > 0 and not context.cfg.model.pretrained
    graphdef, params = asr.init(asr.build(config, ctc=ctc, seed=context.cfg.seed), params)
    row = asr.Row(ctc=section.ctc if ctc else 0.0, **fitting.row_options(section))
    loss_fn = asr.make_loss(graphdef, row)
    trainable = ("backbone", "head") if ctc else ("backbone",)
    mixed = utterances.order(section.repeat)
    phases: list[tuple[tuple[str, ...], Any, np.ndarray]] = [((), section, mixed)]
    if section.short_steps:
        short = mixed[utterances.samples[mixed] <= utterances.buckets[0]]
        if not len(short):
            raise BadValue(f"base.short_steps: nothing is as short as {utterances.buckets[0] / SAMPLE_RATE} s")
        phases.insert(0, (("short",), packed.changed(section, steps=section.short_steps), short))
    if section.finetune_steps:
        options = packed.changed(
            section, steps=section.finetune_steps, learning_rate=section.learning_rate * 0.1, warmup=0
        )
        phases.append((("finetune",), options, utterances.order(0)))
    for sub, options, order in phases:
        plan = BatchPlan(
            lengths=utterances.samples[order],
            buckets=utterances.buckets,
            batch_size=options.batch_size,
            seed=context.cfg.seed,
            multiple=context.multiple,
            names=utterances.names[order],
        )
        fetch = material.Reordered(utterances.collate, order)
        if utterances.joined:
            joined = utterances.joined
            plan, fetch = timed.beside(plan, fetch, joined, joined.collator(), utterances.times)
        params = fitting.train(
            context,
            fitting.Training("base", loss_fn, trainable, options, plan=plan, fetch=fetch, sub=sub),
            params,
        )
    return params


STAGE = Stage(
    "base",
    run,
    needs=("describe",),
    reads=("model", "base"),
    without=("model.weights",),
    together=True,
    outside=inputs,
    sections=SECTIONS,
)
