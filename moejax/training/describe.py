"""Stage `describe`: gate the audio of a corpus, split it, write the manifest, and say what is in it."""

import collections
import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from moejax.audio import flaws
from moejax.data import splits
from moejax.data.manifest import SPLITS, Manifest, Utterance
from moejax.data.sources import SOURCES
from moejax.data.sources.arrayrecord import Shards
from moejax.errors import BadValue, Refused
from moejax.runtime import processes
from moejax.runtime.files import write_json, write_text
from moejax.text import languages
from moejax.training import gated, inventory, text_room
from moejax.work.fields import COUNT, SEED, SHARE, Field, above, below
from moejax.work.stage import Stage

SECTIONS = {
    "data": {
        "source": Field("builtin", "Kind of corpus: which loader reads it.", choices=tuple(SOURCES)),
        "root": Field(
            "",
            "Folder of the corpus; arrayrecord: what `moejax pack` made; hf: a folder, or the id of a dataset. builtin"
            " needs none.",
            location=True,
        ),
        "columns": Field(
            {}, "{field of the manifest: column of the corpus}, for the sources folder, hf and webdataset."
        ),
        "options": Field(
            {},
            "Further arguments of the source's load(), by their names.\n"
            "Such as speakers_per_cohort of builtin, metadata of folder, split of hf.",
            no_result=("workers",),
        ),
        "language": Field(
            "en",
            "Language of the transcripts, by its code: the language token of the decoder's prefix.",
            choices=tuple(languages.NAMES),
            needed=True,
        ),
        "cache_dir": Field(
            "", 'Folder where the builtin source keeps what it synthesised; "" for its own choice.', location=True
        ),
        "seed": Field(
            0,
            "Seed of splits, of the sample and of what a source draws.\n"
            "Apart from the training seed, which never moves a split.",
            limits=SEED,
        ),
        "split": Field(
            "per_speaker",
            "Rule by which utterances become train, dev and test.\n"
            "per_speaker: every speaker is in all parts; speaker_disjoint: no speaker is in two; prompt_disjoint: no"
            " sentence is in two; cohort_heldout: whole cohorts are test; official: as the corpus says.",
            choices=tuple(splits.SCHEMES),
        ),
        "split_fractions": Field(
            (0.8, 0.1, 0.1), "Shares of train, dev and test, which add up to 1.", limits=SHARE, length=3
        ),
        "split_options": Field(
            {},
            "Options of the rule in data.split.\n"
            "per_speaker: prompts; speaker_disjoint: stratify, test_speakers, dev_speakers; cohort_heldout:"
            " test_cohorts; official: dev_by.",
        ),
        "unseen_speakers": Field(
            (),
            "Names of speakers of whom only test utterances stay.\n"
            "So that test holds known and new voices side by side.",
        ),
        "unseen_share": Field(
            0.0,
            "Share of every cohort's speakers (rounded up) who are unseen beside data.unseen_speakers.",
            limits=(0.0, below(1)),
        ),
        "sample_share": Field(
            0.2,
            "Share of the training utterances that is the sample.\n"
            "Embeddings of the sample are clustered, and the experts are pretrained on it.",
            limits=(above(0), 1.0),  # without a sample there is nothing to cluster
        ),
        "min_seconds": Field(0.1, "Seconds below which a recording is skipped.", limits=(0.0, 30.0)),
        "max_seconds": Field(
            30.0,
            "Seconds above which a recording is skipped; 30 is Whisper's window.\n"
            "Longer ones are not cut, because their text would not fit.",
            limits=(above(0), 30.0),
        ),
        "silence_db": Field(
            -60.0, "Decibels of full scale: a recording below them throughout is silent.", limits=(-200.0, 0.0)
        ),
        "max_skipped_share": Field(
            0.05, "Share of the utterances: more than this skipped stops the run.", limits=SHARE
        ),
    },
    "describe": {
        "threads": Field(2, "Threads that read and resample recordings.", limits=(1, 1024), no_result=True),
        "shown_groups": Field(
            40, "Lines of a table that are printed; the files have all.", limits=COUNT, no_result=True
        ),
    },
}
FRESH = ("describe", "audio.partial")  # W/describe/audio while it is being made


def run(cfg, work) -> dict:
    """Writes describe/: manifest.parquet, audio/, skipped.csv, summary.json, summary.md, leakage.md. Returns counts.

    Recordings that are 16 kHz mono WAV or FLAC already stay where they are; others are written once as 16 kHz FLAC.
    Several processes listen to a share each, and one that was killed costs what it was at.
    Raises ValueError, with nothing written, if more than data.max_skipped_share is skipped or an id stands twice.
    """
    utterances, unseen = _heard(cfg, work, load(cfg))  # an impossible split is an error before hours of audio are read
    fresh = work.path(*FRESH)
    if isinstance(utterances, Shards) and not processes.first():
        return {}
    gated.check_shards(work, utterances, fresh)  # what is refused here is still wanted
    try:
        if isinstance(utterances, Shards):
            kept = gated.measured(cfg, work, utterances)
        else:
            kept = gated.heard(cfg, work, utterances, fresh)
        if not processes.first():
            return {}
        _stop_if_too_many(cfg, len(utterances), kept.skipped)
        manifest = _manifest(cfg, work, kept.columns, unseen)
    except Refused:
        shutil.rmtree(fresh, ignore_errors=True)
        gated.forget(work)
        raise
    final = work.path("describe", "audio")
    # The old manifest goes first: it never stands beside audio that is not its own.
    work.path("describe", "manifest.parquet").unlink(missing_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    if fresh.exists():
        os.replace(fresh, final)
    summary = inventory.summarise(manifest, kept.skipped, kept.fixes, kept.recordings)
    write_text(work.path("describe", "skipped.csv"), flaws.listing(kept.skipped))
    write_json(work.path("describe", "summary.json"), summary)
    write_text(work.path("describe", "summary.md"), "\n".join(inventory.markdown(summary)) + "\n")
    write_text(work.path("describe", "leakage.md"), "\n".join(inventory.leakage_markdown(summary["leakage"])) + "\n")
    manifest.save(work.path("describe", "manifest.parquet"))
    gated.forget(work)
    for line in [
        *inventory.markdown(summary, cfg.describe.shown_groups),
        "",
        *inventory.leakage_markdown(summary["leakage"]),
    ]:
        work.log(line)
    counts = {name: summary[name] for name in ("utterances", "hours", "skipped", "fixes")}
    return {**counts, "digest": manifest.digest(), "content": content(manifest, kept.recordings)}


def shard(cfg, work, part: gated.Part) -> int:
    """Listens to part i of n of the corpus, by itself; `run` puts the parts together. How many utterances these are.

    Errors: BadValue for a packed corpus, of which everything is known, and as `gated.hear_shard`.
    """
    utterances, _ = _heard(cfg, work, load(cfg))
    if isinstance(utterances, Shards):
        raise BadValue("describe: --shard is for recordings that are listened to; of a packed corpus all is measured")
    return gated.hear_shard(cfg, work, utterances, work.path(*FRESH), part)


def content(manifest: Manifest, recordings: Sequence[str]) -> str:
    """A digest of every row and of what was heard in it, wherever its audio lies.

    Without the SNR, which follows from what was heard: a corpus that was described before it was measured is the same.
    """
    digest = hashlib.blake2b(manifest.digest(without=("audio", "snr")).encode(), digest_size=16)
    for recording in recordings:
        digest.update(recording.encode())
    return digest.hexdigest()


def load(cfg) -> Sequence[Utterance]:
    """The utterances of the corpus that `cfg.data` names; one-line errors for an unknown option, or none."""
    source = cfg.data.source
    function, options = SOURCES[source], _plain(cfg.data.options)
    parameters = inspect.signature(function).parameters
    offered = {
        **{"root": cfg.data.root, "path": cfg.data.root, "columns": _plain(cfg.data.columns)},
        **{"cache_dir": os.path.expanduser(cfg.data.cache_dir) or None, "seed": cfg.data.seed},
    }
    arguments = {name: value for name, value in offered.items() if name in parameters}
    if not any(kind.kind is inspect.Parameter.VAR_KEYWORD for kind in parameters.values()):
        for name in options:
            if name not in parameters or name in ("root", "path", "columns", "cache_dir"):
                known = ", ".join(name for name in parameters if name not in arguments) or "none"
                raise BadValue(f"data.options: source {source} has no option {name!r}; it has {known}")
    utterances = function(**{**arguments, **options})
    if not utterances:
        raise BadValue(f"data.source {source}: no utterances in {cfg.data.root!r}")
    packed = isinstance(utterances, Shards)  # `moejax pack` refuses an id that stands twice
    ids = () if packed else (utterance.id for utterance in utterances)
    twice = [name for name, count in collections.Counter(ids).items() if count > 1]
    if twice:
        raise BadValue(f"data.source {source}: id {twice[0]!r} stands in more than one row (data.columns.id)")
    return utterances


def inputs(cfg) -> str:
    """A digest that changes when the corpus does: its fields, size and time of its files; for builtin its options.

    Raises like the source when a folder, table or column is missing, before any stage has run.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([cfg.data.source, _plain(cfg.data.options)], sort_keys=True).encode())
    if cfg.data.source == "builtin":
        return digest.hexdigest()
    root, seen, utterances = os.path.abspath(cfg.data.root or "."), {}, load(cfg)
    if model := text_room.decides(cfg, gated.texts(utterances)):
        digest.update(json.dumps(model).encode())
    if isinstance(utterances, Shards):
        digest.update(utterances.digest.encode())
        return digest.hexdigest()
    for utterance in utterances:
        paths = (utterance.audio,) if isinstance(utterance.audio, str) else getattr(utterance.audio, "paths", ())
        for path in paths:
            if path not in seen:
                stat = os.stat(path) if os.path.exists(path) else None
                seen[path] = (stat.st_size, stat.st_mtime_ns) if stat else None
        known = [
            getattr(utterance, name) for name in gated.FIELDS if name not in gated.LATER or getattr(utterance, name)
        ]
        fields = [utterance.id, utterance.text, utterance.split, *known]
        digest.update(json.dumps([fields, [(os.path.relpath(path, root), seen[path]) for path in paths]]).encode())
    return digest.hexdigest()


def _plain(value):
    return value.to_dict() if hasattr(value, "to_dict") else dict(value)


def _stop_if_too_many(cfg, total: int, skipped: list[dict]) -> None:
    share = len(skipped) / total
    if share > cfg.data.max_skipped_share or len(skipped) == total:
        counts = collections.Counter(entry["reason"] for entry in skipped).most_common()
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts)
        first = f"{skipped[0]['id']}: {skipped[0]['detail']}"
        raise BadValue(
            f"describe: {len(skipped)} of {total} utterances ({100 * share:.1f} %) cannot be used, more than "
            f"data.max_skipped_share={cfg.data.max_skipped_share:g}: {reasons} (first: {first})"
        )


def _parts(cfg, columns: Mapping[str, Sequence[str]]) -> list[str]:
    return splits.assign(
        columns,
        scheme=cfg.data.split,
        seed=cfg.data.seed,
        fractions=tuple(cfg.data.split_fractions),
        **_plain(cfg.data.split_options),
    )


def _heard(cfg, work, utterances: Sequence[Utterance]) -> tuple[Sequence[Utterance], set[str]]:
    """The corpus without train and dev utterances of unseen speakers, and who these are."""
    columns = gated.columns(utterances)
    names, share = tuple(cfg.data.unseen_speakers), cfg.data.unseen_share
    unseen = splits.unseen(columns, names=names, share=share, seed=cfg.data.seed)
    parts = _parts(cfg, columns)
    if not unseen:
        return utterances, unseen
    heard = zip(parts, columns["speaker"], strict=True)
    rows = [row for row, (part, speaker) in enumerate(heard) if part == "test" or speaker not in unseen]
    kept = gated.take(utterances, rows)
    said = ", ".join(sorted(unseen)[:20]) + (" ..." if len(unseen) > 20 else "")
    work.log(f"unseen speakers: {said}; {len(utterances) - len(kept)} utterances of theirs outside test left out")
    return kept, unseen


def _manifest(cfg, work, columns: dict[str, Any], unseen: set[str]) -> Manifest:
    columns["split"] = [
        "test" if speaker in unseen else part
        for speaker, part in zip(columns["speaker"], _parts(cfg, columns), strict=True)
    ]  # without their other utterances a group may be filled otherwise
    for part in SPLITS:
        if part not in columns["split"]:
            work.log(f"warning: the split {cfg.data.split!r} leaves no {part} utterances")
    for names in inventory.alike(columns["speaker"]):
        work.log(f"warning: speakers {' and '.join(names)} differ only by case: {len(names)} speakers, or one?")
    columns["sample"] = splits.sample(columns, share=cfg.data.sample_share, seed=cfg.data.seed)
    return Manifest.from_columns(columns, root=work.path())


STAGE = Stage(
    "describe",
    run,
    reads=("data", "describe"),
    shared=True,
    outside=inputs,
    sections=SECTIONS,
)
