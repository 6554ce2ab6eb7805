"""The table of translations: every system through every translator, with intervals and p-values against one row."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moejax.score import bleu, tables

END_TO_END = "end to end"  # the translator of systems that translate speech themselves
MADE_BY = {"deepl_custom": "deepl", "offline_tuned": "offline"}  # who made a translation, as references name him
COLUMNS = (
    *("system", "translator", "sentences", "wer", "bleu", "bleu_mean", "bleu_ci", "bleu_p"),
    *("chrf", "chrf_mean", "chrf_ci", "chrf_p", "comet", "signature", "chrf_signature"),
)


@dataclass(frozen=True)
class Translated:
    """One row: what a system's hypotheses became by a translator, sentence by sentence, those with a reference alone.

    `wer`: of the system on the same utterances, a fraction; None where it writes no transcript. `made_by`: who made
    each reference. `spoken`: what was said, for measures that look at the source.
    """

    system: str
    translator: str
    ids: tuple[str, ...]
    hypotheses: list[str]
    references: list[str]
    made_by: list[str]
    spoken: list[str]
    wer: float | None = None
    taught_by: tuple[str, ...] = ()  # of a system that learnt to translate: translators that made what it learnt

    @property
    def name(self) -> str:
        return name_of(self.system, self.translator)


def name_of(system: str, translator: str) -> str:
    """A row's name, and that of its file: "moe.offline", "direct.end_to_end"."""
    return f"{system}.{translator.replace(' ', '_')}"


def fair(rows: Sequence[Translated], say: Callable[[str], None]) -> list[Translated]:
    """The rows that can be scored; of one that its own translator made the references of, a line says why not."""
    kept = []
    for row in rows:
        makers = {MADE_BY.get(name, name) for name in (row.translator, *row.taught_by)}
        own = sum(bleu.own_references(maker, row.made_by) for maker in makers)
        if own:
            say(f"{row.name} is not scored: {own} of {len(row.references)} references were made by its translator")
        elif row.references:
            kept.append(row)
    return kept


def figures(
    rows: Sequence[Translated], against: str = "", *, samples: int = bleu.SAMPLES, seed: int = bleu.SEED
) -> dict[str, dict]:
    """{row's name: `COLUMNS` of it}, without COMET. p-values are against the row `against`, "" for none; rows of other
    utterances than that have none. Errors: as `bleu.score`.
    """
    found: dict[str, dict] = {}
    for row in rows:
        found[row.name] = {"system": row.system, "translator": row.translator, "wer": row.wer} | bleu.score(
            row.hypotheses,
            row.references,
            system=MADE_BY.get(row.translator, row.translator),
            translation_sources=row.made_by,
        )
    alike: dict[tuple[str, ...], list[Translated]] = {}
    for row in sorted(rows, key=lambda row: row.name != against):  # the first of a test is its baseline
        alike.setdefault(row.ids, []).append(row)
    for group in alike.values():
        tests = [group] if group[0].name == against else [[row] for row in group]
        for test in tests:
            texts = {row.name: row.hypotheses for row in test}
            held = against if test[0].name == against else None
            for name, score in bleu.paired(texts, test[0].references, samples=samples, seed=seed).items():
                found[name] |= score | {"against": held, "samples": samples, "seed": seed}
    return found


def against(rows: Sequence[Translated], systems: Sequence[str]) -> str:
    """The row that others are held against: of the first of these systems, by the first translator that there is."""
    for system in systems:
        for row in rows:
            if row.system == system:
                return row.name
    return rows[0].name if rows else ""


def to_csv(found: dict[str, dict]) -> str:
    """All columns; WER as a fraction, what there is not empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in found.values())
    return out.getvalue()


def to_markdown(found: dict[str, dict]) -> list[str]:
    """Lines: the table, what its columns mean, and the signatures. Older entries may lack all but BLEU and chrF."""
    if not found:
        return []
    judged = any("comet" in row for row in found.values())
    head = [
        "system",
        "translator",
        "sentences",
        "WER %",
        "BLEU (mean ± 95 %)",
        "p",
        "chrF (mean ± 95 %)",
        "p",
        *["COMET"] * judged,
    ]
    body = []
    for name, row in found.items():
        system, _, translator = name.rpartition(".")
        cells = [row.get("system", system), row.get("translator", translator), str(row.get("sentences", "-")), wer(row)]
        for metric in ("bleu", "chrf"):
            cells += [_interval(row, metric), p_value(row.get(f"{metric}_p"))]
        body.append([*cells, *[f"{row['comet']:.4f}" if "comet" in row else "-"] * judged])
    lines = tables.pipe(head, body)
    if first := next((row for row in found.values() if row.get("against")), None):
        lines += [
            "",
            f"± 95 % and p: sacreBLEU's paired bootstrap ({first['samples']} samples, seed {first['seed']}), p against "
            f"`{first['against']}`. WER: of the system on the same utterances.",
        ]
    keys = ("signature", "chrf_signature")
    signatures = dict.fromkeys(f"`{row[key]}`" for key in keys for row in found.values() if key in row)
    return [*lines, "", f"Signatures: {', '.join(signatures)}"] if signatures else lines


def wer(row: dict) -> str:
    """Percent, "-" where there is none."""
    return "-" if row.get("wer") is None else tables.percent(row["wer"])


def _interval(row: dict, metric: str) -> str:
    if f"{metric}_ci" not in row:
        return f"{row[metric]:.1f}"
    return f"{row[metric]:.1f} ({row[f'{metric}_mean']:.1f} ± {row[f'{metric}_ci']:.1f})"  # as sacreBLEU prints it


def p_value(p: float | None) -> str:
    """Four decimals, empty for the row that others are tested against."""
    return "" if p is None else f"{p:.4f}"
