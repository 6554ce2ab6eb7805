"""What console and page say in plain words."""

from moejax.report import roles
from moejax.report.findings import Headline
from moejax.score import tables

MADE = {  # of the clusters, experts
    "none": "one expert each",
    "split": "the largest were split",
    "merge": "the nearest were merged",
    "shrink": "no more experts than clusters",
}


def headline(found: Headline) -> str:
    """The judged system's WER, and against each baseline whether a difference is shown."""
    text = f"{found.focus} has {tables.percent(found.wer)} % WER over {found.utterances} utterances"
    if found.base is not None:
        text += f" ({roles.BASE} {tables.percent(found.base)} %)"
    return text + "".join(f"; against {d['against']} {gap(d)}: {tables.verdict(d)}" for d in found.differences) + "."


def gap(difference: dict) -> str:
    """A difference in points with its interval."""
    low, high = tables.points(difference["low"]), tables.points(difference["high"])
    return f"{tables.points(difference['difference'])} points [{low}, {high}]"


def routing(found: dict, clusters: dict) -> list[str]:
    """How clusters became experts, what the gate is worth, and whether its choice has collapsed."""
    lines = []
    if clusters:
        action = (clusters["match"] or {}).get("action", "none")
        lines.append(
            f"{clusters['method']} found {clusters['found']} clusters of {clusters['level']}s in the sample, with "
            f"{100 * clusters['noise_share']:.1f} % of its utterances in none of them (noise policy: "
            f"{clusters['noise_policy']}); from them come {clusters['num_experts']} experts: {MADE[action]}."
        )
    if (worth := found.get("gate_worth")) and worth["low"] is not None:
        lines.append(
            f"What routing is worth: {roles.MIXTURE} against itself with the mean route of the training part for "
            f"everybody ({roles.MEAN_GATE}): {gap(worth)}: {tables.verdict(worth)}."
        )
    if top_E := found.get("top1"):
        first = max(range(len(top_E)), key=top_E.__getitem__)
        never = [str(e) for e, share in enumerate(top_E) if share == 0]
        text = f"Expert {first} has the largest weight in {100 * top_E[first]:.1f} % of the utterances"
        lines.append(text + (f"; never: {', '.join(never)}." if never else "."))
    return lines
