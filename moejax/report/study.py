"""What the report says over several runs (`job/study.py`): every figure is a mean over training seeds, every
difference paired by seed, speaker and utterance and corrected for how many there are.

Computed here as plain rows; `study_page` makes text of them, and they are report/seeds.csv,
report/seeds_differences.csv and the `study` of summary.json.
"""

import csv
import dataclasses
import io
import math

from moejax.report import roles
from moejax.report.load import Evaluation, evaluation, optional_json
from moejax.score import seeds
from moejax.work.folder import Work, digest

FILE, MAIN = "study.json", "main"
HELDOUT = "held-out cohorts"  # the row of all of them together
RATES = ("part", "system", "group", "name", "seeds", "utterances", "wer", "sd", "low", "high")
GAPS = (
    *("part", "system", "against", "group", "name", "seeds", "utterances", "difference", "low", "high"),
    *("p", "p_holm", "p_speakers", "p_speakers_holm", "reads"),
)


@dataclasses.dataclass(frozen=True)
class Study:
    """`rates` and `gaps` have the columns `RATES` and `GAPS`; `part` is `main`, `ablation` or `heldout`. In the last
    two `name` is the variant; `changes` says what it changes, {variant: {key: value}}. `tune` is {system: {tried,
    chosen}}; `focus` the system that is judged.
    """

    seeds: int
    focus: str
    rates: list[dict]
    gaps: list[dict]
    changes: dict
    tune: dict

    def rate(self, part: str, system: str, group: str, name: str) -> dict | None:
        wanted = (part, system, group, name)
        return next((r for r in self.rates if (r["part"], r["system"], r["group"], r["name"]) == wanted), None)

    def names(self, part: str, group: str) -> list[str]:
        return list(dict.fromkeys(r["name"] for r in self.rates if (r["part"], r["group"]) == (part, group)))

    def systems(self, part: str) -> list[str]:
        return list(dict.fromkeys(r["system"] for r in self.rates if r["part"] == part))

    def to_dict(self) -> dict:
        """Plain JSON values; undefined figures are None."""
        return {
            "seeds": self.seeds,
            "focus": self.focus,
            "rates": [_plain(r) for r in self.rates],
            "differences": [_plain(g) for g in self.gaps],
            "changes": self.changes,
            "tune": self.tune,
        }


@dataclasses.dataclass(frozen=True)
class Runs:
    """The runs of a study: `scored` has (seed, evaluation) of each by variant, `MAIN` among them; `heldout` names the
    variants that hold a cohort out, `single` the adapters of one cohort or speaker each, no systems for everybody.
    """

    scored: dict[str, list[tuple[int, Evaluation]]]
    heldout: list[str]
    changes: dict
    tune: dict
    single: set[str]


def read(cfg, work, found: Evaluation, normalizer) -> Runs | None:
    """The runs of a workdir, None where it has none or those of another config (which is logged). `found` is the
    evaluation of the workdir itself, the first run.
    """
    listing = optional_json(work.path(FILE))
    if listing is None:
        return None
    if listing["digest"] != digest(cfg.to_dict()):
        work.log("report: without seeds and ablations, which were run with another config; run them again with it")
        return None
    scored: dict[str, list] = {}
    for run in listing["runs"]:
        folder = Work(work.path(run["folder"]), quiet=True)
        one = found if run["folder"] == "." else evaluation(folder, normalizer, cfg.report.typical)
        scored.setdefault(run["variant"], []).append((run["seed"], one))
    return Runs(scored, listing["heldout"], listing["changes"], listing["tune"], single_adapters(work))


def compute(runs: Runs, found: Evaluation, focus: str, against: tuple[str, ...], *, draws: int, seed: int) -> Study:
    """All rates and differences; `found` is the evaluation of the first run, `focus` the judged system."""
    fixed = [name for name, size in found.systems.items() if size.get("trainable") == 0]
    scores = {
        variant: seeds.collect([r | {"seed": n} for n, one in each for r in one.rows], fixed)
        for variant, each in runs.scored.items()
    }
    made = _Maker(dict(draws=draws, seed=seed), focus, against)
    made.main(scores[MAIN], found, runs.single)
    made.ablations(scores[MAIN], {v: s for v, s in scores.items() if v not in (MAIN, *runs.heldout)})
    made.heldout({v: scores[v] for v in runs.heldout})
    number = len({n for each in runs.scored.values() for n, _ in each})
    return Study(number, focus, made.rates, made.gaps, runs.changes, runs.tune)


def single_adapters(work) -> set[str]:
    """The adapters of one cohort or speaker each, which are no systems for everybody."""
    index = optional_json(work.path("adapters", "index.json")) or {}
    return {name for name, entry in index.items() if entry["kind"] in ("cohort", "speaker")}


class _Maker:
    """Rows of rates and differences; differences of one `_family` are corrected together."""

    def __init__(self, options, focus, against):
        self.options, self.focus, self.against = options, focus, against
        self.rates, self.gaps = [], []

    def main(self, scores, found, single):
        """All utterances, seen and unseen speakers: every system; cohorts too; by speaker the judged system alone."""
        every = list(scores.words)
        systems = [s for s in scores.whole(every) if s not in single]
        of = {r["id"]: r for r in found.rows}
        cohorts = {c: [] for c in found.cohorts} | _grouped(every, lambda i: of[i]["cohort"])
        groups = {("all", "all"): every} | _voices(every, of, found.heard)
        for (group, name), ids in (groups | {("cohort", c): ids for c, ids in cohorts.items()}).items():
            for system in systems:
                self._rate("main", scores, system, group, name, ids)
        for other in (o for o in self.against if o in systems):
            theirs = (scores, other)
            for (group, name), ids in groups.items():
                family = [(name, (scores, s), theirs, ids) for s in systems if s != other]
                self._family("main", other, group, family)
            if self.focus in systems:
                family = [(c, (scores, self.focus), theirs, ids) for c, ids in cohorts.items()]
                self._family("main", other, "cohort", family)
        speakers = _grouped(every, lambda i: of[i]["speaker"])
        for other in [o for o in (roles.BASE, *self.against[:1]) if o in systems and self.focus in systems]:
            for speaker, ids in sorted(speakers.items()):
                kind = "unseen speaker" if found.heard and speaker not in found.heard else "speaker"
                self._family("main", other, kind, [(speaker, (scores, self.focus), (scores, other), ids)])

    def ablations(self, main, variants):
        """Each variant's systems against the judged system as configured, and against `against`."""
        pairs: dict[str, list] = {}
        for variant, scores in variants.items():
            ids = list(scores.words)
            for system in scores.whole(ids):
                self._rate("ablation", scores, system, "variant", variant, ids)
                for other in (self.focus, *self.against):
                    if ids and other in main.whole(i for i in ids if i in main.words) and set(ids) <= main.words.keys():
                        pairs.setdefault(other, []).append((variant, (scores, system), (main, other), ids))
        for other, found in pairs.items():
            self._family("ablation", other, "variant", found)

    def heldout(self, variants):
        """Cohort by cohort, each recognised by a run that never heard it, and all of them together."""
        if not variants:
            return
        joined = _joined(variants.values())
        for variant, scores in [*variants.items(), (HELDOUT, joined)]:
            ids = list(scores.words)
            for system in scores.whole(ids):
                self._rate("heldout", scores, system, "variant", variant, ids)
        systems = joined.whole(joined.words)
        for other in [o for o in (roles.BASE, *self.against) if o in systems]:
            for system in [s for s in systems if s not in (other, roles.BASE)]:
                family = [(v, (s, system), (s, other), list(s.words)) for v, s in variants.items()]
                self._family("heldout", other, "variant", family)
                self._family(
                    "heldout", other, "variant", [(HELDOUT, (joined, system), (joined, other), [*joined.words])]
                )

    def _rate(self, part, scores, system, group, name, ids):
        found = seeds.rate(scores, system, ids, **self.options)
        self.rates.append({"part": part, "system": system, "group": group, "name": name} | found)

    def _family(self, part, against, group, found):
        """Differences that are corrected together: (name, ours, theirs, utterances) of each."""
        rows = []
        for name, ours, theirs, ids in found:
            gap = seeds.difference(ours, theirs, ids, **self.options)
            if gap is not None:
                rows.append({"part": part, "system": ours[1], "against": against, "group": group, "name": name} | gap)
        rows = seeds.corrected(rows)
        self.gaps += [row | {"reads": seeds.verdict(row)} for row in rows]


def _grouped(ids, key) -> dict[str, list[str]]:
    """The utterances of every name that is not empty."""
    found: dict[str, list[str]] = {}
    for i in ids:
        if name := key(i):
            found.setdefault(name, []).append(i)
    return found


def _voices(every: list[str], of: dict[str, dict], heard: set[str]) -> dict[tuple[str, str], list[str]]:
    """Utterances of speakers heard in training and of new ones; nothing where there is one kind only."""
    if not heard:
        return {}
    found = {name: [i for i in every if (of[i]["speaker"] in heard) == (name == "seen")] for name in ("seen", "unseen")}
    return {("voices", name): ids for name, ids in found.items()} if all(found.values()) else {}


def _joined(parts) -> seeds.Scores:
    """Disjoint test parts as one: each utterance scored by the run that held its cohort out."""
    words, speaker, errors, fixed = {}, {}, {}, set()
    for scores in parts:
        words |= scores.words
        speaker |= scores.speaker
        fixed |= scores.fixed
        for system, by in scores.errors.items():
            for seed, found in by.items():
                errors.setdefault(system, {}).setdefault(seed, {}).update(found)
    return seeds.Scores(words, speaker, errors, frozenset(fixed))


def csv_of(rows: list[dict], columns) -> str:
    """Rates as fractions of six digits, undefined ones as nan."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    return out.getvalue()


def _plain(row: dict) -> dict:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
