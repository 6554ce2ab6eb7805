"""The scored test part: what the stage evaluate left, utterance by utterance, with the errors of each."""

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from moejax.errors import BadValue, NotThere
from moejax.report import roles
from moejax.runtime.files import read_json, read_jsonl
from moejax.score import wer
from moejax.systems import registry
from moejax.text import normalize


@dataclass(frozen=True)
class Evaluation:
    """The scored test part: `rows` as `score.tables` wants them, each with its normalised `reference` and `hypothesis`.

    `systems` maps names, in table order, to {"trainable", "total"}; `derived` names the systems put together here
    (`roles.OWN`), which no stage trained; `heard` are the speakers with utterances in the training part; `known` are
    the manifest's rows by id.
    """

    rows: list[dict]
    systems: dict[str, dict]
    derived: list[str]
    cohorts: list[str]
    heard: set[str]
    missing: list[str] = field(default_factory=list)
    known: dict[str, dict] = field(default_factory=dict)

    def of(self, system: str) -> list[dict]:
        return self._by_system.get(system, [])

    @functools.cached_property
    def _by_system(self) -> dict[str, list[dict]]:
        found = {}
        for row in self.rows:
            found.setdefault(row["system"], []).append(row)
        return found


def evaluation(work, normalizer: normalize.Normalizer, typical: str) -> Evaluation:
    """Reads and scores W/evaluate. FileNotFoundError or ValueError name the file and the stage that makes it."""
    listing = work.path("evaluate", "systems.json")
    if not listing.exists():
        raise NotThere(f"{listing} is missing: run the stage evaluate before the report")
    systems = read_json(listing)
    known = utterances(work)
    rows = []
    for system in systems:
        rows += _score(work.path("evaluate", f"{system}.jsonl"), system, known, normalizer)
    if not rows:
        raise BadValue(f"{listing} lists no system with an utterance: nothing to report")
    groups = _groups(work, systems)
    own = [r for kind in roles.OWN for r in _own(rows, kind, groups)]
    return Evaluation(
        rows=rows + own,
        systems=systems,
        derived=list(dict.fromkeys(r["system"] for r in own)),
        cohorts=cohorts(rows, typical),
        heard={r["speaker"] for r in known.values() if r.get("split") == "train" and r.get("speaker")},
        missing=[] if known else ["describe/manifest.parquet (no speakers, no cohorts)"],
        known=known,
    )


def utterances(work) -> dict[str, dict]:
    """{id: row of the manifest}; empty where there is no manifest."""
    manifest = work.path("describe", "manifest.parquet")
    return {r["id"]: r for r in pq.read_table(manifest).to_pylist()} if manifest.exists() else {}


def cohorts(rows: list[dict], typical: str) -> list[str]:
    """The cohorts of scored rows in the order of tables: the typical one first."""
    return sorted({r["cohort"] for r in rows if r["cohort"]}, key=lambda c: (c != typical, c))


def slug(name: str) -> str:
    """A name as it may stand in a file name: lower case, everything but letters and digits an underscore."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def optional_json(path: Path):
    """The content of a JSON file, or None where there is none."""
    return read_json(path) if path.exists() else None


def _score(path: Path, system: str, known: dict[str, dict], normalizer: normalize.Normalizer) -> list[dict]:
    if not path.exists():
        raise NotThere(f"{path} is missing though systems.json lists {system!r}: run the stage evaluate again")
    spoken = read_jsonl(path)
    if known and (stray := next((u["id"] for u in spoken if u["id"] not in known), None)):
        raise BadValue(f"{path} has utterance {stray!r}, which the manifest lacks: run the stage evaluate again")
    return score(spoken, system, known, normalizer)


def score(spoken: list[dict], system: str, known: dict[str, dict], normalizer: normalize.Normalizer) -> list[dict]:
    """Rows for `score.tables` from one system's records ({id, reference, hypothesis, ...}), one per utterance."""
    references = [normalizer(u["reference"]) for u in spoken]
    hypotheses = [normalizer(u["hypothesis"]) for u in spoken]
    words, chars = wer.count(references, hypotheses), wer.count_characters(references, hypotheses)
    clipped = wer.clipped(
        [tuple(normalizer(r) for r in normalize.disfluency_references(u["reference"])) for u in spoken], hypotheses
    )
    return [
        {
            "id": u["id"],
            "system": system,
            **{key: known.get(u["id"], {}).get(key) or "" for key in ("speaker", "cohort", "etiology")},
            "errors": w.errors,
            "words": w.words,
            "char_errors": c.errors,
            "chars": c.words,
            "substitutions": w.substitutions,
            "deletions": w.deletions,
            "insertions": w.insertions,
            "length_ratio": w.length_ratio,
            "runaway_errors": w.errors if runs_on(reference, hypothesis) else 0,
            "clipped_errors": k.errors,
            "clipped_words": k.words,
            "reference": reference,
            "hypothesis": hypothesis,
            "seconds": u.get("seconds"),
            "audio_seconds": u.get("audio_seconds"),
        }
        for u, w, c, k, reference, hypothesis in zip(spoken, words, chars, clipped, references, hypotheses, strict=True)
    ]


def runs_on(reference: str, hypothesis: str, longest: int = 4, times: int = 4) -> bool:
    """Whether the decoder did not find the end: more than twice as many words as were said and `times` more, or up to
    `longest` words `times` times or more in a row, and more often so than in the reference.
    """
    said, found = reference.split(), hypothesis.split()
    repeats = _repeats(found, longest)
    return len(found) > 2 * len(said) + times or (repeats >= times and repeats > _repeats(said, longest))


def _repeats(words: list[str], longest: int) -> int:
    """How often in a row the same up to `longest` words stand at most; 1 where nothing repeats."""
    most = 1
    for n in range(1, longest + 1):
        run = 0  # words that equal the one n places before
        for one, other in zip(words, words[n:], strict=False):
            run = run + 1 if one == other else 0
            most = max(most, 1 + run // n)
    return most


def _groups(work, systems: dict) -> dict[str, tuple[str, str]]:
    """{system: (cohort or speaker, whose)} of those that were trained for one; in workdirs whose evaluation did not
    write it down, by the registry.
    """
    known = registry.known(work) if any("group" not in entry for entry in systems.values()) else {}
    groups = {
        name: entry["group"] if "group" in entry else known[name].group
        for name, entry in systems.items()
        if "group" in entry or name in known
    }
    return {name: (group[0], group[1]) for name, group in groups.items() if group}


def _own(rows: list[dict], kind: str, groups: dict) -> list[dict]:
    """Rows of the system in which every utterance is recognised by the adapter of its own cohort or speaker."""
    return [r | {"system": roles.OWN[kind]} for r in rows if r[kind] and groups.get(r["system"]) == (kind, r[kind])]
