"""Every system decodes the same test utterances; one JSON line per utterance and system."""

import dataclasses
import functools
import json
import time

import jax
import numpy as np

from moejax.cohorts.embed import options as embedding_options
from moejax.data.pipeline import eval_batches, loader
from moejax.errors import UnknownName
from moejax.nn import functional
from moejax.ops import routing
from moejax.runtime import faults
from moejax.runtime.files import read_json, read_jsonl, write_json, write_text
from moejax.runtime.sharding import shard_batch
from moejax.systems import controls
from moejax.tasks import asr
from moejax.train.checkpoint import digest_of, load_params
from moejax.training import hyper, network, probe
from moejax.training.mixture import load_table
from moejax.work.context import Corpus
from moejax.work.stage import Stage

DEFAULTS = {
    "evaluate": {
        "split": "test",
        "batch_size": 32,
        "systems": (),  # names or kinds to decode; () for all that were trained
        "weights": "",  # format of the backbone in decoding: float32, bfloat16 or int8; "" is model.weights
        "speaker_scope": "own",  # own: lora_<speaker> decodes its own speaker's utterances; all: everybody's
    },
}


DECODED = "decoded.json"  # {system: what made its lines}, for a stage that is stopped


@dataclasses.dataclass(frozen=True)
class System:
    """One row of the table: parameters, the route they are used with, and what of them was trained."""

    name: str
    route: str
    graphdef: object
    params: dict
    mixture: asr.Mixture | None = None
    label: int = 0
    trainable: int = 0
    control: str = "none"  # of tasks.asr.CONTROLS: what is done to the gate to see what it is worth
    logits_NE: np.ndarray | None = None  # what control "constant" replaces the gate's logits by, of all the manifest


def run(cfg, work) -> dict:
    """Writes W/evaluate/<system>.jsonl, systems.json, routing.json, and prints the load matrix of `moe`.

    A stage that was stopped goes on with the system that it was at.
    """
    corpus = Corpus(cfg, work, cfg.evaluate.weights)
    rows = corpus.rows(cfg.evaluate.split)
    index, words = {}, {}
    before = read_json(work.path("evaluate", DECODED)) if work.path("evaluate", DECODED).exists() else {}
    for name in chosen(cfg, work):
        system = open_system(corpus, name)
        scope = own_rows(corpus, rows, name)
        if not len(scope):
            work.log(f"  {name}: no {cfg.evaluate.split} utterance of its speaker, left out")
            continue
        file, made = work.path("evaluate", f"{name}.jsonl"), _made_of(system)
        records = read_jsonl(file) if file.exists() and before.get(name) == made else []
        if len(records) == len(scope):
            work.log(f"  {name}: decoded before")
        else:
            records = decode(corpus, system, scope)
            write_text(file, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
            before[name] = made
            write_json(work.path("evaluate", DECODED), before)
        index[name] = {
            "trainable": system.trainable,
            "total": functional.count(system.params["backbone"]) + (system.trainable if system.mixture else 0),
            "utterances": len(records),
            "seconds": sum(record["seconds"] for record in records),
        }
        words[name] = len(records)
        if name == "moe":
            write_json(work.path("evaluate", "routing.json"), routing_summary(corpus, system, scope, records, work))
    write_json(work.path("evaluate", "systems.json"), index)
    return {"systems": len(index), "utterances": len(rows)}


def _made_of(system: System) -> str:
    """Digest of the numbers that decode: lines of others are not taken for this system's."""
    logits = {} if system.logits_NE is None else {"logits_NE": system.logits_NE}
    return digest_of({**system.params, **logits})


def known_systems(work) -> list[str]:
    """All systems that this workdir can decode, in the order of the table."""
    names = ["base"]
    if work.path("adapters", "index.json").exists():
        names += list(read_json(work.path("adapters", "index.json")))
    names += hyper.known(work)
    trained = (work.finished("experts") or {"inputs": {}})["inputs"].get("experts.steps", 1)  # else they are the base
    if trained and work.path("experts", "params.safetensors").exists():
        names.append("moe_frozen")
    if work.path("joint", "params.safetensors").exists():
        names += ["moe", *controls.CONTROLS]
    return names


def chosen(cfg, work) -> list[str]:
    """The systems that the config asks for. Errors: a name that no stage has trained."""
    known = known_systems(work)
    asked = list(cfg.evaluate.systems)
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UnknownName(f"no system {unknown[0]!r} in this workdir; it has {', '.join(known)}")
    return asked or known


def open_system(corpus: Corpus, name: str) -> System:
    """Loads one system. Errors: KeyError for an adapter that does not exist, naming those that do."""
    work = corpus.work
    known = known_systems(work)
    if name not in known:
        raise UnknownName(f"no system {name!r} in this workdir; it has {', '.join(known)}")
    if name == "base":
        config, base = corpus.base
        graphdef, params = asr.init(asr.build(config), base)
        return System(name, "none", graphdef, params)
    if hyper.trained_name(name):
        return System(name, **hyper.open_system(corpus, name))
    if name.startswith("moe"):
        stage = "experts" if name == "moe_frozen" else "joint"
        graphdef, params, mixture, _ = network.with_gate(corpus, stage)
        groups = ("expert",) if name == "moe_frozen" else ("expert", "gate")
        count = sum(functional.count(params[group]) for group in groups)
        if name not in controls.CONTROLS:
            return System(name, "gate", graphdef, params, mixture, label=-1, trainable=count)
        if name == "moe_uniform_gate" and mixture.routing not in ("dense", "sigmoid"):  # even logits choose the first k
            return System(name, "uniform", graphdef, params, mixture, label=-1, trainable=count)
        logits_NE = controls.logits(name, corpus, graphdef, params, mixture)
        return System(name, "gate", graphdef, params, mixture, -1, count, "constant", logits_NE)
    index = read_json(work.path("adapters", "index.json"))
    entry = index[name]
    if entry["kind"] == "full":
        config, params = corpus.network(work.path("adapters", "full", "model"))
        graphdef, params = asr.init(asr.build(config), params)
        return System(name, "none", graphdef, params, trainable=entry["trainable"])
    family = [other for other, its in index.items() if its["rank"] == entry["rank"]]
    graphdef, params, mixture = _family(corpus, index, family)
    return System(name, "label", graphdef, params, mixture, family.index(name), entry["trainable"])


def _family(corpus, index, names):
    """All adapters of one rank in one stack, in the order of `names`: they share one compiled search."""
    kinds = list(dict.fromkeys(index[name]["kind"] for name in names))
    files = [load_params(corpus.work.path("adapters", kind, "params.safetensors"))[0]["expert"] for kind in kinds]
    stacked = jax.tree.map(lambda *leaves: np.concatenate(leaves), *files)
    mixture = network.definition(corpus.cfg, len(names), rank=index[names[0]]["rank"], shared_rank=0)
    return *network.with_experts(corpus, mixture, {"expert": stacked}), mixture


def own_rows(corpus: Corpus, rows, name):
    """Rows that a system decodes: all, but a speaker's adapter by default only that speaker's."""
    file = corpus.work.path("adapters", "index.json")
    entry = read_json(file).get(name) if file.exists() else None
    if entry is None or entry["kind"] != "speaker" or corpus.cfg.evaluate.speaker_scope == "all":
        return rows
    return rows[corpus.manifest.column("speaker")[rows] == name.removeprefix("lora_")]


@functools.lru_cache(maxsize=8)
def _predictor(graphdef, route, mixture, embedding, prefix, eot, max_tokens):
    return asr.make_predict(
        graphdef, prefix=list(prefix), eot=eot, max_tokens=max_tokens, route=route, mixture=mixture, embedding=embedding
    )


def decode(corpus: Corpus, system: System, rows) -> list[dict]:
    """One record per row: id, reference, hypothesis, route (weights of the experts), seconds, audio_seconds."""
    cfg, tokenizer = corpus.cfg, corpus.tokenizer
    predict = _predictor(
        system.graphdef,
        system.route,
        system.mixture,
        embedding_options(cfg),
        tuple(corpus.prefix()),
        tokenizer.eot,
        corpus.max_tokens(),
    )
    labels = np.full(len(rows), system.label)
    if system.route == "gate" and system.mixture.known_share:  # a cluster that is known, by sound for dev and test
        labels = network.clusters_of(corpus)["label"][rows]
    collate = corpus.collator(rows, labels=labels)
    batches = eval_batches(corpus.samples[rows], corpus.buckets, cfg.evaluate.batch_size, multiple=corpus.multiple)
    # Every system with a gate passes both, so that all of them share one compilation.
    control = {"control": asr.CONTROLS.index(system.control)}
    given_NE = system.logits_NE
    if system.route == "gate" and given_NE is None:
        given_NE = np.zeros((len(corpus.manifest), system.mixture.num_experts), np.float32)
    records: list[dict | None] = [None] * len(rows)
    stream = loader(batches, collate, workers=cfg.runtime.workers)
    shown = corpus.work.progress(stream, total=len(batches), desc=system.name)
    for (_, index), batch in zip(batches, shown, strict=True):
        start = time.perf_counter()
        placed = shard_batch(batch, corpus.mesh)
        if given_NE is not None:
            control["logits_E"] = given_NE[rows[np.maximum(index, 0)]]
        decoded, weight_BE = predict(system.params, placed.audio_BS, placed.samples_B, placed.label_B, **control)
        faults.point("evaluate.batch")
        tokens_BL, lengths_B = np.asarray(decoded.tokens_BL), np.asarray(decoded.lengths_B)
        weights = None if weight_BE is None or system.route == "label" else np.asarray(weight_BE)
        seconds = (time.perf_counter() - start) / max(int((index >= 0).sum()), 1)
        for b, i in enumerate(index):
            if i >= 0:
                text = tokenizer.decode(tokens_BL[b, : lengths_B[b]])
                route = None if weights is None else [round(float(w), 6) for w in weights[b]]
                records[i] = _record(corpus, rows[i], text, route, seconds)
    return records


def _record(corpus, row, hypothesis, route, seconds) -> dict:
    manifest = corpus.manifest
    return {
        "id": str(manifest.column("id")[row]),
        "reference": str(manifest.column("text")[row]),
        "hypothesis": hypothesis,
        "route": route,
        "seconds": round(seconds, 5),
        "audio_seconds": round(float(manifest.column("seconds")[row]), 3),
    }


def routing_summary(corpus, system, rows, records, work) -> dict:
    """Load of every expert by cohort on the decoded part, and the gate's accuracy; printed and kept for the report.

    `load` counts shares of weight, `top1` utterances by their largest weight. `gate_accuracy` is that of the gate
    stage, `gate_accuracy_joint` that of the gate as `moe` uses it, on the same rows.
    """
    weight_NE = np.array([record["route"] for record in records], np.float32)
    share_NE = np.asarray(routing.shares(weight_NE))
    cohort_NC = np.eye(len(corpus.cohorts))[corpus.cohort_index(rows)]
    load_EC = share_NE.T @ cohort_NC
    meta = network.gate_of(work)["meta"]
    load_E = share_NE.mean(0)
    prior_E = np.asarray(meta["prior"])
    top = np.bincount(weight_NE.argmax(1), minlength=len(prior_E)) / len(weight_NE)
    work.log(load_table(load_EC, corpus.cohorts, prior_E, top))
    clusters = network.clusters_of(corpus)
    fit_rows = np.flatnonzero(corpus.manifest.column("sample") & clusters["keep"])
    embedding = network.gate_inputs(corpus, np.arange(len(corpus.manifest)))
    scores = probe.gate_scores(corpus, system.graphdef, system.params, embedding, clusters["label"], fit_rows)
    work.log(
        f"  gate accuracy after joint training {scores['gate_accuracy']:.3f} (after the gate stage"
        f" {meta['gate_accuracy']:.3f}, majority {scores['majority']:.3f})"
    )
    return {
        "experts": len(prior_E),
        "cohorts": corpus.cohorts,
        "load": (load_EC / np.maximum(load_EC.sum(0, keepdims=True), 1e-9)).tolist(),
        "load_total": load_E.tolist(),
        "top1": top.tolist(),
        "max_top1": float(top.max()),
        "max_load": float(load_E.max()),
        "max_load_over_prior": float((load_E / prior_E).max()),
        "prior": prior_E.tolist(),
        "entropy": float(-(load_E * np.log(load_E + 1e-9)).sum()),
        "utterance_entropy": float(-(share_NE * np.log(share_NE + 1e-9)).sum(1).mean()),
        "gate_accuracy": meta["gate_accuracy"],
        "gate_accuracy_joint": scores["gate_accuracy"],
        "gate_rows": scores["rows"],
        "majority": scores["majority"],
        "nuisance": scores["nuisance"],
    }


STAGE = Stage("evaluate", run, needs=("joint", "adapters", "hyper"), reads=("evaluate",), sections=DEFAULTS)
