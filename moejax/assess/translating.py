"""`moejax score --translate`: what was heard, translated, and scored where the table has translations of its own."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from moejax.assess import groups
from moejax.assess.table import Scored
from moejax.data.manifest import Utterance
from moejax.errors import BadValue
from moejax.mt import deepl_languages
from moejax.score import bleu, translations, wer

FIGURES = ("sentences", "bleu", "chrf")  # columns of the CSV


@dataclass(frozen=True)
class Line:
    """A line of the table and the translation of every utterance, by id."""

    scored: Scored
    texts: dict[str, str]


def translate(
    scored: Sequence[Scored], by: Callable[[list[str], str], list[str] | None], target: str, language: str | None
) -> list[Line] | None:
    """Every line through the translator `by` (texts and their language), each text once; what is in the target language
    stays as it is. None in a dry run. Errors: BadValue for texts of an unknown language.
    """
    wanted: dict[str, dict[str, str]] = {}
    for one in scored:
        for said in one.said.values():
            wanted.setdefault(language or said.language, {}).setdefault(said.text, "")
    if "" in wanted:
        raise BadValue("--keep holds texts that were kept without their language: give --language, or another --keep")
    dry = False
    for source, known in wanted.items():
        if deepl_languages.same(source, target):
            known |= {text: text for text in known}
            continue
        found = by(list(known), source)
        dry = dry or found is None
        known |= dict(zip(known, found or [], strict=found is not None))
    return (
        None
        if dry
        else [Line(one, {id: wanted[language or s.language][s.text] for id, s in one.said.items()}) for one in scored]
    )


def rows(
    lines: Sequence[Line], utterances: Sequence[Utterance], translator: str, places: Sequence[int] | None = None
) -> list[translations.Translated]:
    """Of the utterances, or those in these `places`, that have a translation in the table."""
    chosen = [i for i in (range(len(utterances)) if places is None else places) if utterances[i].translation]
    own = [utterances[i] for i in chosen]
    return [
        translations.Translated(
            line.scored.name,
            translator,
            tuple(one.id for one in own),
            hypotheses=[line.texts[one.id] for one in own],
            references=[one.translation or "" for one in own],
            made_by=[one.translation_source or "" for one in own],
            spoken=[one.text for one in own],
            wer=wer.rate([line.scored.words[i] for i in chosen]) if own else None,
        )
        for line in lines
    ]


def add_figures(table: Sequence[dict], lines: Sequence[Line], utterances, by: Sequence[str], translator: str) -> None:
    """`FIGURES` for every row of the table: BLEU and chrF of its group, empty where nothing has a translation."""
    found: dict[tuple[int, tuple[str, str]], dict] = {}
    for group, places in groups.members(utterances, by).items():
        for number, row in enumerate(rows(lines, utterances, translator, places)):
            if row.references:
                found[number, group] = bleu.score(row.hypotheses, row.references)
    numbers = {(line.scored.model, line.scored.system, line.scored.enroll): i for i, line in enumerate(lines)}
    for row in table:
        number = numbers[row["model"], row["system"], row["enroll"]]
        scores: Mapping = found.get((number, (row["group"], row["name"])), {})
        row |= {name: scores.get(name, "") for name in FIGURES}


def to_jsonl(lines: Sequence[Line], utterances: Sequence[Utterance], target: str, translator: str) -> str:
    """An object for every line and utterance: what was said, heard, and made of it."""
    out = []
    for line in lines:
        one = line.scored
        for utterance in utterances:
            said = one.said[utterance.id]
            record = {
                **{"model": one.model, "system": one.system, "enroll": one.enroll, "id": utterance.id},
                **{"text": utterance.text, "heard": said.text, "language": said.language},
                **{"target": target, "translator": translator, "translation": line.texts[utterance.id]},
                **{"reference": utterance.translation or "", "reference_by": utterance.translation_source or ""},
            }
            out.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(out)
