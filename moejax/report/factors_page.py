"""Where errors occur, as text: the part of errors.md, and the sentences of summary.json."""

from moejax.report import roles
from moejax.report.factors import COLUMNS, Factors, Gap, Majority
from moejax.score import tables
from moejax.score.effects import Effect, Explained, Model
from moejax.score.tables import percent, points

EXPLAINED = (
    "Percent of the variance of the utterances' error rates (an utterance's errors count at most its words) that no "
    "other factor explains, that several share (below 0 where one hides another), that speakers have beyond them, and "
    "the rest; Holm p over the factors for the judged system, from a linear mixed model of all factors with speakers "
    "as random intercepts."
)
ADJUSTED = (
    "Against the factor's other levels, everything else held equal; 95 % intervals by leaving out one speaker at a "
    "time. Levels of fewer than 3 speakers are judged together."
)


def markdown(factors: Factors, main: list[str], focus: str) -> list[str]:
    """Lines below a heading of depth two; none where the corpus tells nothing of its utterances."""
    if not factors.levels:
        return []
    lines = ["", "## Where the errors occur", "", *(f"- {line}" for line in sentences(factors, focus))]
    lines += _rates(factors, main, focus) + _bleu(factors, focus)
    return lines + _explained(factors, main, focus) + _adjusted(factors, focus) + _reached(factors)


def sentences(factors: Factors, focus: str) -> list[str]:
    """Which factors go with errors of the judged system, and the two answers about adaptation, with intervals."""
    lines = []
    if model := factors.models.get(focus):
        lines += _named(model, focus)
    elif factors.levels:
        lines.append("What explains the errors is not said: fewer than 5 speakers, or rates that do not vary.")
    if gap := factors.typical.get(focus):
        lines.append(_typical(gap, focus))
    if found := factors.majority.get(focus):
        lines.append(_majority(found, focus))
    return lines


def _named(model: Model, focus: str) -> list[str]:
    lines = []
    for f in sorted((f for f in model.factors if f.shown), key=lambda f: -f.share):
        kind, told = ("more", f.worse()) if f.worse() else ("fewer", f.better())
        share = f"{100 * f.share:.1f} % of the variance, Holm p {_p(f.p_holm)}"
        if told:
            where = ", ".join(f"{e.level} {_points(e)}" for e in told)
            lines.append(f"`{focus}` makes {kind} errors by {f.factor}: {where}; {share}.")
        else:
            lines.append(f"The errors of `{focus}` differ by {f.factor}, no level apart from the rest; {share}.")
    if rest := [f.factor for f in model.factors if not f.shown]:
        lines.append(f"No effect shown: {', '.join(rest)}.")
    if model.confounded:
        lines.append(f"Not told apart from the factors before them: {', '.join(model.confounded)}.")
    return lines


def _typical(gap: Gap, focus: str) -> str:
    answer = {"better": "no, it helps", "worse": "yes", "no difference shown": "no harm shown"}
    text = f"Does adaptation hurt typical speech? {answer.get(gap.verdict, gap.verdict)}: `{focus}` against "
    return text + f"`{roles.BASE}` {_points(gap)} over {gap.utterances} typical utterances."


def _majority(found: Majority, focus: str) -> str:
    inside, outside, apart = found.inside, found.outside, found.apart
    answer = {
        (True, True): "no, the others gain too",
        (False, True): "no, the others gain",
        (True, False): "a gain is shown there alone",
        (False, False): "no gain is shown in either",
    }[inside.verdict == "better", outside.verdict == "better"]
    reads = {"better": "the others gain more", "worse": "the others gain less"}
    return (
        f"Is the gain only in the majority accent ({found.accent}, {100 * found.share:.0f} %)? {answer}: `{focus}` "
        f"against `{roles.BASE}` {_points(inside)} there, {_points(outside)} in the other accents, difference "
        f"{_points(apart)}: {reads.get(apart.verdict, 'the two are not told apart')}."
    )


def _rates(factors: Factors, main: list[str], focus: str) -> list[str]:
    """WER of every system by level; for the judged one the interval and the difference to the other levels."""
    others = [s for s in main if s != focus]
    head = ["factor", "level", "utterances", "speakers", *others, f"{focus} [95 %]", f"{focus} - other levels [95 %]"]
    body = []
    for factor, levels in factors.levels.items():
        for level in levels:
            row = factors.row(focus, factor, level)
            cells = [percent(r["value"]) if (r := factors.row(s, factor, level)) else "-" for s in others]
            judged = [_rate(row), _gap(row)] if row else ["-", "-"]
            size = [str(row["utterances"]), str(row["speakers"])] if row else ["0", "0"]
            body.append([factor, level, *size, *cells, *judged])
    text = (
        f"WER in percent; what is measured is cut into thirds. Intervals: 95 %, by bootstrap over {factors.unit}; "
        f"factors.csv has those of all systems."
    )
    return ["", *tables.pipe(head, body), "", text]


def _bleu(factors: Factors, focus: str) -> list[str]:
    """BLEU of the judged system's translations by level; nothing where there is none."""
    names = dict.fromkeys(r["system"] for r in factors.rows if r["measure"] == "bleu")
    lines = []
    for name in (n for n in names if n.rsplit(".", 1)[0] == focus):
        head = ["factor", "level", "utterances", "BLEU [95 %]", "- other levels [95 %]"]
        body = []
        for row in (r for r in factors.rows if r["system"] == name):
            value, gap = (f"{row[key]:{sign}.1f}" for key, sign in (("value", ""), ("difference", "+")))
            value += f" [{row['low']:.1f}, {row['high']:.1f}]"
            gap += f" [{row['difference_low']:+.1f}, {row['difference_high']:+.1f}]"
            body.append([row["factor"], row["level"], str(row["utterances"]), value, gap])
        lines += ["", f"BLEU of `{name}`:", "", *tables.pipe(head, body)]
    return lines


def _explained(factors: Factors, main: list[str], focus: str) -> list[str]:
    systems = [s for s in main if s in factors.models]
    if not systems:
        return []
    shares = {s: {f.factor: f for f in factors.models[s].factors} for s in systems}
    names = list(dict.fromkeys(name for found in shares.values() for name in found))

    def cell(found: Explained | None) -> str:
        return f"{100 * found.share:.1f}" if found else "-"

    judged = shares.get(focus, {})
    body = [
        [name, *(cell(shares[s].get(name)) for s in systems), _p(judged[name].p_holm) if name in judged else "-"]
        for name in names
    ]
    for label, key in (("several together", "common"), ("speakers beyond them", "speakers"), ("rest", "rest")):
        body.append([label, *(f"{100 * getattr(factors.models[s], key):.1f}" for s in systems), ""])
    return ["", "### What explains them", "", *tables.pipe(["factor", *systems, "Holm p"], body), "", EXPLAINED]


def _adjusted(factors: Factors, focus: str) -> list[str]:
    if not (model := factors.models.get(focus)):
        return []
    body = []
    for f in model.factors:
        order = {level: i for i, level in enumerate(factors.levels[f.factor])}
        for e in sorted(f.effects, key=lambda e: order.get(e.level, len(order))):
            body.append([f.factor, e.level, str(e.utterances), str(e.speakers), _points(e)])
    head = ["factor", "level", "utterances", "speakers", f"{focus}, adjusted [95 %]"]
    return ["", *tables.pipe(head, body), "", ADJUSTED]


def _reached(factors: Factors) -> list[str]:
    """Every system against the base: on typical speech, in the accent of the most and in the others."""
    systems = list(dict.fromkeys([*factors.typical, *factors.majority]))
    if not systems:
        return []
    first = next(iter(factors.majority.values()), None)
    head = ["system", *(["typical speech"] if factors.typical else [])]
    head += [f"accent {first.accent}", "other accents", "others - it"] if first else []
    body = []
    for s in systems:
        cells = [_cell(factors.typical.get(s))] if factors.typical else []
        found = factors.majority.get(s)
        cells += [_cell(getattr(found, part, None)) for part in ("inside", "outside", "apart")] if first else []
        body.append([s, *cells])
    text = f"Points of WER against `{roles.BASE}`, paired; negative is better."
    return ["", "### Whom the gain reaches", "", *tables.pipe(head, body), "", text]


def _cell(gap: Gap | None) -> str:
    return _gap({"difference": gap.difference, "difference_low": gap.low, "difference_high": gap.high}) if gap else "-"


def _rate(row: dict) -> str:
    return f"{percent(row['value'])} [{percent(row['low'])}, {percent(row['high'])}]"


def _gap(row: dict) -> str:
    return f"{points(row[COLUMNS[9]])} [{points(row[COLUMNS[10]])}, {points(row[COLUMNS[11]])}]"


def _points(found: Gap | Effect) -> str:
    value = found.value if isinstance(found, Effect) else found.difference
    return f"{points(value)} points [{points(found.low)}, {points(found.high)}]"


def _p(p: float) -> str:
    return "-" if p != p else "<0.001" if p < 0.001 else f"{p:.3f}"
