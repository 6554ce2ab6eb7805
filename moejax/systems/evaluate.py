"""Every system decodes the same test utterances; one JSON line per utterance and system."""

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.data.manifest import SPLITS
from moejax.data.pipeline import eval_batches, loader
from moejax.decode.enrolled import Context as Front
from moejax.decode.prefix import usual
from moejax.errors import BadValue
from moejax.nn import quantize
from moejax.runtime import faults, processes
from moejax.runtime.files import read_json, write_json, write_text
from moejax.runtime.sharding import shard_batch
from moejax.systems import answering, enrolled, listening, published, registry, routing
from moejax.systems.system import Opened, System
from moejax.tasks import recognition
from moejax.train.params_file import digest_of
from moejax.training import gate_inputs
from moejax.types import Config
from moejax.work.context import Context
from moejax.work.fields import BATCH, Field
from moejax.work.folder import Work, digest
from moejax.work.stage import Stage

SECTIONS = {
    "evaluate": {
        "split": Field("test", "Part that is decoded and scored.", choices=tuple(SPLITS)),
        "batch_size": Field(32, "Utterances in a batch, over all devices.", limits=BATCH),
        "systems": Field((), "Names of the systems that are decoded; () for all that were trained."),
        "published": Field(
            (),
            "Published models that are decoded, too, as published: names as 'base' or 'openai/whisper-large-v3', or"
            " folders.\nTheir rows are called whisper-base and so on.",
            later=True,
        ),
        "enroll": Field(
            (),
            "Numbers of a speaker's phrases that stand in front of what is read, such as (3,): one row more each.\n"
            "Those of speakers whom nothing is trained on come from the part that is scored, and are left out of every"
            " row. Needs model.pretrained.",
            kind=int,
            limits=(1, 20),
            later=True,
        ),
        "enroll_systems": Field(
            ("base", "lora_total", "moe"),
            "Systems that are read so, where they are decoded, beside all of evaluate.published.",
            later=True,
        ),
        "weights": Field(
            "", 'Number format of the backbone in decoding; "" is model.weights.', choices=("", *quantize.KINDS)
        ),
        "strength": Field(
            1.0,
            "Share of what adapters and experts learnt that systems are read with, by moejax.load and export, too.\n"
            "Less forgets less of what the base knew of other speech; chosen on dev. 1: all of it.",
            limits=(0.0, 1.0),
            later=True,
        ),
        "speaker_scope": Field(
            "own",
            "Which utterances lora_<speaker> decodes.\nown: those of its own speaker; all: everybody's.",
            choices=("own", "all"),
        ),
    },
}


Fronts = Sequence[Front | None] | None
SAID = ("salmonn.beams", "salmonn.most")  # how the stage salmonn's systems answer: read where they are decoded
DECODED = "decoded.json"  # {system: what its lines were made of}


def run(cfg: Config, work: Work) -> dict:
    """Writes W/evaluate/<system>.jsonl, systems.json, routing.json, and prints the load matrix of `moe`.

    Lines are written as they are decoded, and those that the same numbers made of the same utterance stay: a stage that
    was stopped, or whose config has other rows now, decodes what is missing. Several processes decode a share each of
    every system; what one had decoded before it was lost stays, too.
    """
    context = Context(cfg, work, cfg.evaluate.weights)
    spoken = enrolled.phrases(context, context.corpus.rows(cfg.evaluate.split), cfg.evaluate.enroll)
    rows, index = spoken.rows, {}
    before = read_json(work.path("evaluate", DECODED)) if work.path("evaluate", DECODED).exists() else {}
    for system, count in _table(cfg, work, context):
        name = system.name
        scope = own_rows(context, rows, system)
        if not len(scope):
            work.log(f"  {name}: no {cfg.evaluate.split} utterance of its speaker, left out")
            continue
        file, made = work.path("evaluate", f"{name}.jsonl"), made_of(context, system, spoken, count)
        if before.get(name) != made and processes.first():
            for old in (file, *_shares(file)):
                old.unlink(missing_ok=True)
            before[name] = made
            write_json(work.path("evaluate", DECODED), before)
        fronts = spoken.fronts(context, scope, count) if count else None
        records = lines(context, system, scope, fronts, file, shared=True)
        index[name] = {
            "role": system.role,
            "group": system.group,
            "trainable": system.trainable,
            "total": system.network.count("backbone") + (system.trainable if system.network.mixture else 0),
            "utterances": len(records),
            "seconds": sum(record["seconds"] for record in records),
        }
        if name == "moe" and processes.first():
            write_json(work.path("evaluate", "routing.json"), routing.summary(context, system, scope, records))
    if processes.first():
        for file in work.path("evaluate").glob("*.jsonl"):
            if file.stem not in index:  # of another config
                file.unlink()
        write_json(work.path("evaluate", "systems.json"), index)
    return {"systems": len(index), "utterances": len(rows)}


def lines(
    context: Context, system: Opened, rows: np.ndarray, fronts: Fronts, file: Path, shared: bool = False
) -> list[dict]:
    """The system's records of these rows, in their order, and the file of them: those that are in it are kept.
    `shared`: all processes are here, and each decodes a share.
    """
    ids = list(context.corpus.manifest.strings("id", rows))
    parts = _shares(file, processes.count()) if shared and processes.count() > 1 else [file]
    if processes.first():  # also what shares say of a run that was killed
        found = {record["id"]: record for part in (file, *_shares(file)) for record in _read_whole_lines(part)}
        _write_lines(file, [found[one] for one in ids if one in found])
        for part in _shares(file):
            part.unlink()
    _meet(shared)
    known = {record["id"] for record in _read_whole_lines(file)}
    missing = [place for place, one in enumerate(ids) if one not in known]
    if known:
        context.work.log(f"  {system.name}: {len(known)} of {len(ids)} decoded before")
    mine = processes.share(missing) if shared else missing
    if mine:
        own = None if fronts is None else [fronts[place] for place in mine]
        with open(parts[processes.index() if shared else 0], "a", encoding="utf-8") as out:
            for record in stream(context, system, rows[mine], own):
                out.write(_line(record))
                out.flush()
    _meet(shared)  # all shares are whole
    found = {record["id"]: record for part in {file, *parts} for record in _read_whole_lines(part)}
    records = [found[one] for one in ids]
    _meet(shared)  # and read
    if processes.first():
        _write_lines(file, records)
        for part in _shares(file):
            part.unlink()
    return records


def _meet(shared: bool) -> None:
    if shared:
        processes.meet()


def _shares(file: Path, count: int | None = None) -> list[Path]:
    """Where each of `count` processes writes its share of a file; None for those that are there."""
    if count is None:
        return sorted(file.parent.glob(f"{file.stem}.*.share"))
    return [file.with_name(f"{file.stem}.{process}.share") for process in range(count)]


def _table(cfg: Config, work: Work, context: Context) -> Iterator[tuple[Opened, int]]:
    """(system, phrases in front of what it reads) of every row, opened one after the other."""
    models = published.systems(cfg.evaluate.published)
    names = chosen(cfg, work)
    if both := [system.name for system in models.values() if system.name in names]:
        raise BadValue(f"evaluate.published: {both[0]!r} is the name of a system here")
    own = ((name, functools.partial(registry.open_system, context, name)) for name in names)
    theirs = ((name, functools.partial(published.open_model, context, name, models[name])) for name in models)
    for name, opened in itertools.chain(own, theirs):
        system = opened()
        yield system, 0
        if name in models or name in cfg.evaluate.enroll_systems:
            for count in cfg.evaluate.enroll:
                yield dataclasses.replace(system, name=f"{system.name}+{count}", role="control", of=system.name), count


def open_row(context: Context, name: str) -> Opened:
    """A system by the name of its row, whether trained here or one of `evaluate.published`. Errors: UnknownName."""
    for model, system in published.systems(context.cfg.evaluate.published).items():
        if system.name == name:
            return published.open_model(context, model, system)
    return registry.open_system(context, name)


def made_of(context: Context, system: Opened, spoken: enrolled.Phrases | None, count: int) -> str:
    """Digest of all that a line depends on: the corpus, the numbers that decode, how, and who is enrolled by what."""
    network, logits_NE = system.network, system.network.logits_NE
    return digest(
        {
            "corpus": _passed(context, "describe"),
            "language": context.cfg.data.language,
            "stage": _passed(context, system.stage),
            "network": digest_of({**network.params, **({} if logits_NE is None else {"logits_NE": logits_NE})}),
            "route": [network.route, network.label],
            "phrases": {name: own[:count] for name, own in spoken.own.items()} if spoken and count else None,
            **({"target": network.target} if network.target else {}),
            **({"answers": [context.cfg.salmonn[key.split(".")[1]] for key in SAID]} if system.answers else {}),
        }
    )


def _passed(context: Context, stage: str) -> str | None:
    """What a stage is known by: a corpus that has moved is the same one. None for one that has not run."""
    done = context.work.finished(stage)
    return None if done is None else done.get("passes", done["digest"])


def chosen(cfg: Config, work: Work) -> list[str]:
    """The systems that the config asks for. Errors: UnknownName for one that no stage has trained."""
    return [registry.find(work, name).name for name in cfg.evaluate.systems] or list(registry.known(work))


def own_rows(context: Context, rows: np.ndarray, system: System) -> np.ndarray:
    """Rows that a system decodes: all, but a speaker's adapter by default only that speaker's."""
    column, whose = system.group or ("", "")
    if column != "speaker" or context.cfg.evaluate.speaker_scope == "all":
        return rows
    return rows[context.corpus.manifest.column("speaker")[rows] == whose]


@functools.lru_cache(maxsize=8)
def _predictor(graphdef, route, mixture, embedding, prefix, eot, max_tokens):
    return recognition.make_predict(
        graphdef, prefix=list(prefix), eot=eot, max_tokens=max_tokens, route=route, mixture=mixture, embedding=embedding
    )


def decode(context: Context, system: Opened, rows: np.ndarray, fronts: Fronts = None) -> list[dict]:
    """The records of `stream`, one per row, in the order of the rows."""
    found = {record["id"]: record for record in stream(context, system, rows, fronts)}
    return [found[one] for one in context.corpus.manifest.strings("id", rows)]


def stream(context: Context, system: Opened, rows: np.ndarray, fronts: Fronts = None) -> Iterator[dict]:
    """One record per row, as they are decoded: id, reference, hypothesis, route (weights of the experts), seconds
    (since the record before), audio_seconds. `fronts`: phrases of each row's speaker.
    """
    if system.answers:
        return _answered(context, system, rows)
    network, labels = system.network, np.full(len(rows), system.network.label)
    if network.route == "gate" and network.mixture and network.mixture.known_share:
        # A cluster that is known, by sound for dev and test
        labels = gate_inputs.clusters_of(context)["label"][rows]
    if context.base.times or network.tokenizer is not None:
        return _listened(context, system, rows, labels, fronts)
    return _predicted(context, system, rows, labels)


def _listened(context, system, rows, labels, fronts) -> Iterator[dict]:
    """Of a base that writes times: as it reads recordings."""
    start = time.perf_counter()
    found = listening.transcripts(context, system, rows, labels, fronts)
    for i, transcript, weight_E in context.work.progress(found, total=len(rows), desc=system.name):
        _decoded()
        route = None if weight_E is None or system.network.route == "label" else [round(w, 6) for w in weight_E]
        now = time.perf_counter()
        yield _record(context, rows[i], transcript.text.strip(), route, now - start)
        start = now


def _answered(context, system, rows) -> Iterator[dict]:
    """Of a language model that hears: by its answer to the question of the task."""
    start = time.perf_counter()
    found = answering.answers_of(context, system, rows)
    for i, text, weight_E in context.work.progress(found, total=len(rows), desc=system.name):
        _decoded()
        route = None if weight_E is None else [round(float(w), 6) for w in weight_E]
        now = time.perf_counter()
        yield _record(context, rows[i], text, route, now - start)
        start = now


def _predicted(context, system, rows, labels) -> Iterator[dict]:
    """Of any other: greedily, in the windows that it was trained on, without times.

    A batch lasts as long as its longest text: rows that say more than is `usual` for their length (a loop, mostly) are
    decoded again at the end, among their like.
    """
    cfg, tokenizer, network = context.cfg, context.base.tokenizer, system.network
    predict = _predictor(
        network.graphdef,
        network.route,
        network.mixture,
        network.embedding,
        tuple(context.prefix(network.target)),
        tokenizer.eot,
        context.max_tokens(network.target),
    )
    # Every system with a gate passes both, so that all of them share one compilation.
    given_NE = network.logits_NE
    replaced: dict[str, Any] = {"given": given_NE is not None}
    if network.route == "gate" and network.mixture and given_NE is None:
        given_NE = np.zeros((len(context.corpus.manifest), network.mixture.num_experts), np.float32)
    samples, room = context.corpus.samples[rows], context.max_tokens(network.target)
    usual_N = usual(samples / SAMPLE_RATE)
    usual_N = np.where(2 * usual_N > room, room, usual_N).astype(np.int32)
    longer: dict[int, float] = {}  # seconds that they have taken

    def decoded(places, limit_N):
        """(place in `rows`, ids, experts' weights, seconds) of these places."""
        collate = context.collator(rows[places], labels=labels[places])
        batches = eval_batches(samples[places], context.buckets, cfg.evaluate.batch_size, multiple=context.multiple)
        loaded = loader(batches, collate, workers=cfg.runtime.workers)
        shown = context.work.progress(loaded, total=len(batches), desc=system.name)
        for (_, index), batch in zip(batches, shown, strict=True):
            start = time.perf_counter()
            placed, own = shard_batch(batch, context.mesh), places[np.maximum(index, 0)]
            if given_NE is not None:
                replaced["logits_E"] = given_NE[rows[own]]
            limit_B = np.where(index < 0, 0, limit_N[own]).astype(np.int32)
            found, weight_BE = predict(
                network.params, placed.audio_BS, placed.samples_B, placed.label_B, limit_B=limit_B, **replaced
            )
            _decoded()
            tokens_BL, lengths_B = np.asarray(found.tokens_BL), np.asarray(found.lengths_B)
            weights = None if weight_BE is None or network.route == "label" else np.asarray(weight_BE)
            seconds = (time.perf_counter() - start) / max(int((index >= 0).sum()), 1)
            for b in np.flatnonzero(index >= 0):
                weight_E = None if weights is None else weights[b]
                yield int(own[b]), tokens_BL[b, : lengths_B[b]], weight_E, seconds

    for limit_N in (usual_N, np.full(len(rows), room, np.int32)):
        places = np.arange(len(rows)) if limit_N is usual_N else np.asarray(list(longer), np.int64)
        for place, ids, weight_E, seconds in decoded(places, limit_N) if len(places) else ():
            if len(ids) == limit_N[place] < room:
                longer[place] = seconds
                continue
            route = None if weight_E is None else [round(float(w), 6) for w in weight_E]
            yield _record(context, rows[place], tokenizer.decode(ids), route, seconds + longer.get(place, 0.0))


def _decoded() -> None:
    """The point of both ways where a test may end the process."""
    faults.point("evaluate.batch")


def _record(context, row, hypothesis, route, seconds) -> dict:
    manifest = context.corpus.manifest
    return {
        "id": manifest.strings("id")[row],
        "reference": manifest.strings("text")[row],
        "hypothesis": hypothesis,
        "route": route,
        "seconds": round(seconds, 5),
        "audio_seconds": round(float(manifest.column("seconds")[row]), 3),
    }


def _line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _write_lines(file: Path, records: Iterable[dict]) -> None:
    write_text(file, "".join(map(_line, records)))


def _read_whole_lines(file: Path) -> list[dict]:
    """Records of a file that a kill may have ended in the middle of its last line; [] where there is none."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n") if line]


STAGE = Stage(
    "evaluate",
    run,
    needs=("joint", "adapters", "hyper", "st", "emotion", "salmonn"),
    reads=("evaluate", *SAID),
    keeps=True,
    shared=True,
    sections=SECTIONS,
)
