"""A workdir whose systems are evaluated, made without any model: what the report is tested on."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ml_collections import ConfigDict

from moejax.report import load
from moejax.report import stage as report
from moejax.work import fields

WORDS = "the quick brown fox jumps over a lazy dog while seven small birds sing in old trees".split()
RATES = {"base": 0.5, "lora": 0.3, "lora_total": 0.25, "moe_frozen": 0.24, "moe": 0.2, "moe_random_gate": 0.4}
COHORTS = {"typical": ("A1", "A2"), "slow speech": ("B1", "B2"), "tremor": ("C1", "C2")}


@dataclass
class Folder:
    """A workdir of paths and log lines, no stage of which has finished."""

    root: Path
    lines: list[str] = field(default_factory=list)

    def path(self, *parts) -> Path:
        return self.root.joinpath(*parts)

    def log(self, message: str) -> None:
        self.lines.append(message)

    def finished(self, stage: str) -> None:
        return None

    def put(self, name: str, content) -> None:
        path = self.path(*name.split("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(line) + "\n" for line in content))
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))


def spoil(text: str, rate: float, rng) -> str:
    """The text with words exchanged, dropped or doubled at the given rate."""
    out = []
    for word in text.split():
        kind = rng.random()
        if kind > rate:
            out.append(word)
        elif kind < rate / 2:
            out.append(str(rng.choice(WORDS)))
        elif kind < 0.7 * rate:
            out += [word, word]
    return " ".join(out)


def evaluated(root: Path, cohorts=COHORTS, each: int = 8, rates=RATES, adapters: bool = True) -> Folder:
    """A workdir with describe and evaluate done; C2, or the last speaker, was not heard in training."""
    work, rng = Folder(root), np.random.default_rng(0)
    rows = []
    for cohort, speakers in cohorts.items():
        for speaker in speakers:
            for part in ("train", "test"):
                for u in range(each if part == "test" else 1):
                    text = " ".join(rng.choice(WORDS, rng.integers(3, 9)))
                    row = {"id": f"{speaker}-{part}-{u}", "text": text, "speaker": speaker, "cohort": cohort}
                    rows.append(row | {"etiology": "" if cohort == "typical" else "als", "split": part})
    newest = list(cohorts.values())[-1][-1]
    rows = [r for r in rows if not (r["speaker"] == newest and r["split"] == "train")]
    work.path("describe").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), work.path("describe", "manifest.parquet"))
    test = [r for r in rows if r["split"] == "test"]
    plan, groups = {system: (rate, test) for system, rate in rates.items()}, {}
    if adapters:
        groups = {f"lora_{load.slug(c)}": ("cohort", c) for c in cohorts}
        groups |= {f"lora_{s}": ("speaker", s) for ss in cohorts.values() for s in ss}
    for name, (kind, whose) in groups.items():
        plan[name] = (0.25, test) if kind == "cohort" else (0.22, [r for r in test if r["speaker"] == whose])
    for system, (rate, scored) in plan.items():
        work.put(
            f"evaluate/{system}.jsonl",
            [
                {
                    "id": r["id"],
                    "reference": r["text"],
                    "hypothesis": spoil(r["text"], rate * (0.3 if r["cohort"] == "typical" else 1.2), rng),
                    "route": [0.5, 0.5] if "moe" in system else None,
                    "seconds": 0.01,
                    "audio_seconds": 2.0,
                }
                for r in scored
            ],
        )
    sizes = {s: {"trainable": 1000 * i, "total": 600_000, "group": groups.get(s)} for i, s in enumerate(plan)}
    work.put("evaluate/systems.json", sizes)
    return work


def complete(work: Folder, cohorts=COHORTS, experts: int = 4) -> Folder:
    """What the optional stages leave, added to an evaluated workdir."""
    load_EC = np.random.default_rng(1).dirichlet(np.full(experts, 0.4), len(cohorts)).T
    work.put(
        "evaluate/routing.json",
        {
            "experts": experts,
            "cohorts": list(cohorts),
            "load": load_EC.tolist(),
            "max_load": 0.41,
            "entropy": 1.1,
            "prior": np.random.default_rng(2).dirichlet(np.full(experts, 5.0)).tolist(),
            "gate_accuracy": 0.9,
            "majority": 0.33,
            "nuisance": 0.41,
        },
    )
    work.put("translate/summary.json", {"moe.offline": {"bleu": 41.25, "chrf": 60.5, "signature": "nrefs:1|v:2"}})
    work.put("describe/summary.md", "# Corpus\n\n| cohort | hours |\n|---|---:|\n| a<b | 1.5 |\n")
    work.put("describe/leakage.md", "No speaker in **two** parts.\n")
    work.put("config.json", {"digest": "c0ffee"})
    for stage, digest in (("describe", "da7a"), ("joint", "1234")):
        work.put(f"{stage}/done.json", {"digest": digest, "seconds": 12.5})
    for stage in ("base", "gate", "experts", "joint", "adapters/lora", "adapters/lora_total"):
        curve = [{"step": s, "loss": 4 / s**0.3, "ce": 3.9 / s**0.3, "seconds": s} for s in range(1, 200, 5)]
        for record in curve[::8]:
            record["eval/ce"] = 1.1 * record["ce"]
        work.put(f"{stage}/metrics.jsonl", curve)
    return work


def settings(**changes) -> ConfigDict:
    options = ConfigDict(fields.defaults(report.SECTIONS["report"]) | {"draws": 100} | changes)
    return ConfigDict({"seed": 0, "name": "test", "report": options})
