"""The figures of `moejax score`: error rates by group with intervals over speakers, and paired differences."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

from moejax.assess import groups
from moejax.assess.plan import OTHER, TEXTS
from moejax.assess.reading import Said
from moejax.data.manifest import Utterance
from moejax.score import bootstrap, wer
from moejax.score.tables import percent, pipe, points, verdict

COLUMNS = ("model", "system", "enroll", "group", "name", "utterances", "words", "errors", "wer", "wer_low", "wer_high")
MORE = ("cer", "substitutions", "deletions", "insertions", "overlong", "capped")
OVERLONG = 2.0  # a text of more than so many times the reference's words is nobody's reading


@dataclasses.dataclass(frozen=True)
class Scored:
    """One line of the table over the same utterances as every other: `words` and `chars` per utterance, in order."""

    model: str
    system: str
    enroll: str
    words: list[wer.Counts]
    chars: list[wer.Counts]
    said: Mapping[str, Said] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a reader sees."""
        shown = self.model if self.system == "base" else f"{self.model} {self.system}"
        return f"{shown}, {self.enroll} enrolled" if self.enroll != "0" else shown


def score(
    model: str, system: str, enroll: str, said: Mapping[str, Said], utterances: Sequence[Utterance], normalise
) -> Scored:
    """The counts of what was heard; reference and text are normalised alike."""
    references = [normalise(utterance.text) for utterance in utterances]
    heard = [normalise(said[utterance.id].text) for utterance in utterances]
    counts = wer.count(references, heard), wer.count_characters(references, heard)
    return Scored(model, system, enroll, *counts, said)


def rows(scored: Sequence[Scored], utterances: Sequence[Utterance], by: Sequence[str], *, draws=1000) -> list[dict]:
    """A dict of `COLUMNS` and `MORE` for every line and group; rates are fractions, intervals 95 %."""
    found = groups.members(utterances, by)
    return [_row(one, group, found[group], utterances, draws) for one in scored for group in found]


def _row(one: Scored, group, places, utterances, draws):
    words = [one.words[place] for place in places]
    speakers = [utterances[place].speaker for place in places]
    errors, lengths = [count.errors for count in words], [count.words for count in words]
    found = bootstrap.interval(errors, lengths, speakers, draws=draws)
    total = sum(lengths)
    capped = sum(min(error, length) for error, length in zip(errors, lengths, strict=True))
    figures = {
        **dict(zip(("model", "system", "enroll"), (one.model, one.system, one.enroll), strict=True)),
        **{"group": group[0], "name": group[1], "utterances": len(places), "words": total, "errors": sum(errors)},
        **{"wer": found.value, "wer_low": found.low, "wer_high": found.high},
        "cer": wer.rate([one.chars[place] for place in places]),
        **{kind: sum(getattr(count, kind) for count in words) for kind in ("substitutions", "deletions", "insertions")},
        "overlong": sum(count.length_ratio > OVERLONG for count in words) / len(words),
        "capped": capped / total if total else float("nan"),
    }
    return {name: figures[name] for name in (*COLUMNS, *MORE)}


def differences(scored: Sequence[Scored], utterances: Sequence[Utterance], *, draws=1000) -> list[dict]:
    """Every line against the same model and system with nobody enrolled, against its controls and the other ways to use
    as many phrases, and against the systems before it with as many: a minus b.
    """
    speakers, found = [utterance.speaker for utterance in utterances], []
    for place, one in enumerate(scored):
        for before, other in enumerate(scored):
            same = (one.model, one.system) == (other.model, other.system)
            if not (_controlled(one, other) if same else before < place and _rivals(one, other)):
                continue
            a, b = ([count.errors for count in line.words] for line in (one, other))
            gap = bootstrap.difference(a, b, [count.words for count in one.words], speakers, draws=draws)
            figures = {"difference": gap.value, "low": gap.low, "high": gap.high, "unit": gap.unit}
            found.append({"line": one.name, "against": other.name, **figures})
    return found


def _controlled(one: Scored, other: Scored) -> bool:
    """Whether a line of the same system says what `one` is worth."""
    return one is not other and (other.enroll == "0" or other.enroll.startswith(f"{one.enroll}-"))


def _rivals(one: Scored, other: Scored) -> bool:
    """Whether a line of another system is of as many phrases, and neither is a control."""
    counts = [line.enroll.partition("-") for line in (one, other)]
    return counts[0][0] == counts[1][0] and not any(way in (OTHER, TEXTS) for _, _, way in counts)


def to_csv(found: Sequence[dict]) -> str:
    """Rows as CSV, rates as fractions; all have the same columns."""
    out = io.StringIO()
    writer = csv.DictWriter(out, tuple(found[0]) if found else (*COLUMNS, *MORE), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in found)
    return out.getvalue()


def to_markdown(found: Sequence[dict], gaps: Sequence[dict]) -> str:
    """For people: percent. Everybody first, then the groups, speakers last."""
    lines, whole = [], [row for row in found if row["group"] == "all"]
    head = ["", "WER %", "95 %", "CER %", "sub", "del", "ins", "overlong %", "capped WER %"]
    body = [
        [
            _label(row),
            percent(row["wer"]),
            f"[{percent(row['wer_low'])}, {percent(row['wer_high'])}]",
            percent(row["cer"]),
            *(str(row[kind]) for kind in ("substitutions", "deletions", "insertions")),
            percent(row["overlong"]),
            percent(row["capped"]),
        ]
        for row in whole
    ]
    lines += pipe(head, body)
    if gaps:
        body = [
            [
                f"{gap['line']} - {gap['against']}",
                points(gap["difference"]),
                f"[{points(gap['low'])}, {points(gap['high'])}]",
                verdict(gap),
            ]
            for gap in gaps
        ]
        lines += ["", *pipe(["difference, points", "WER", "95 %", ""], body)]
    groups = dict.fromkeys((row["group"], row["name"]) for row in found if row["group"] != "all")
    labels = [_label(row) for row in whole]
    for group in dict.fromkeys(group for group, _ in groups):
        cells = {(row["name"], _label(row)): row for row in found if row["group"] == group}
        names = [name for kind, name in groups if kind == group]
        body = [
            [name, str(cells[name, labels[0]]["utterances"]), *(percent(cells[name, label]["wer"]) for label in labels)]
            for name in names
        ]
        lines += ["", *pipe([f"WER % by {group}", "utterances", *labels], body)]
    return "\n".join(lines) + "\n"


def _label(row) -> str:
    return Scored(row["model"], row["system"], row["enroll"], [], []).name
