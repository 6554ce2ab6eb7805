"""The table of `moejax bench transcribe`, and what it is held against."""

from typing import Any

from moejax.bench import load
from moejax.bench.engines import FASTER, OURS
from moejax.bench.table import aligned, verdict

RATIO, POINTS = 1.0, 0.005  # of faster-whisper's best time, at a word error rate at most so much above its
START = 4.0  # seconds that a later start on a short recording may take
CALLS = 1.5  # a first call over later ones
HEAD = ("workload", "engine", "pipeline", "seconds", "processor s", "ratio", "WER %", "must", "met", "note")


def best(rows: list[dict], workload: str, engine: str) -> dict | None:
    """The quickest row of an engine on a workload, of those that were measured."""
    some = [row for row in rows if (row["workload"], row["engine"]) == (workload, engine) and row["seconds"]]
    return min(some, key=lambda row: row["seconds"], default=None)


def ratio(row: dict, rows: list[dict], seconds: float | None = None) -> float | None:
    """A row's time (or these seconds) over faster-whisper's best on the same workload."""
    peer, mine = best(rows, row["workload"], FASTER), seconds or row["seconds"]
    return mine / peer["seconds"] if mine and peer else None


def as_good(row: dict, peer: dict) -> bool:
    """Whether a row's error rate is at most half a point above the peer's; where nobody knows, it is not asked."""
    return row["wer"] is None or peer["wer"] is None or row["wer"] <= peer["wer"] + POINTS


def verdicts(rows: list[dict], calls: list[dict]) -> list[dict[str, Any]]:
    """What is held against a bar: {"name", "value", "must", "met", "why"}; `value` None where it was not measured.

    Twice per workload: against the peer's quickest row, whatever its errors, by a row of ours with at most half a point
    more; and against the quickest of its rows that have at most half a point more errors than ours.
    """
    found = []
    for workload in ("talk", "clips"):
        if not any(row["workload"] == workload for row in rows):
            continue
        mine = [row for row in rows if row["workload"] == workload]
        quickest = best(mine, workload, FASTER)
        good = [row for row in mine if quickest and as_good(row, quickest)]
        found.append(_held(f"{workload}: ours / faster-whisper's quickest", best(good, workload, OURS), quickest))
        pairs = [
            (ours, peer)
            for ours in mine
            if ours["engine"] == OURS and ours["seconds"]
            if (peer := best([row for row in mine if as_good(row, ours)], workload, FASTER))
        ]
        ours, peer = min(pairs, key=lambda pair: pair[0]["seconds"] / pair[1]["seconds"], default=(None, None))
        found.append(_held(f"{workload}: ours / its quickest at our error rate", ours, peer))
    if short := [row for row in rows if row["workload"] == "short" and row["engine"] == OURS]:
        found.append(_bar("short: a later start, seconds", short[0]["seconds"], START, short[0]["pipeline"]))
    for call in calls:
        found.append(_bar(f"{call['workload']}: first call / later calls", call.get("ratio"), CALLS, call["why"]))
    return found


def _held(name, ours, peer):
    value = ours["seconds"] / peer["seconds"] if ours and peer else None
    why = f"{ours['pipeline']} / {peer['pipeline']}" if ours and peer else "no peer was measured"
    return _bar(name, value, RATIO, why)


def _bar(name, value, must, why):
    return {"name": name, "value": value, "must": must, "met": verdict(value, must, None), "why": why}


def text(report: dict) -> str:
    """The table, the verdicts, and how it was measured."""
    cells: list[tuple[str, ...]] = [HEAD]
    for row in report["rows"]:
        if row["first"]:
            cells.append(_cells(row, report, row["first"]))
        cells.append(_cells(row, report))
    lines = _left(cells)
    lines += ["", *(_verdict(one) for one in report["verdicts"])]
    lines += ["", *(f"{one['name']}: {one['about']}" for one in report["workloads"])]
    machine, settings = report["machine"], report["settings"]
    lines.append(
        f"{settings['model']}, greedy, language {settings['language']}; {machine['cpu']}, {machine['cores']} cores;"
        f" load {report['load'][0]:.1f} at the end; {report['seconds']:.0f} s in all"
    )
    lines.append(
        f"whole processes, the engines taking turns; medians of {settings['calls']} runs with less than {load.LIMIT}"
        " cores used by others, else the quickest run with a note; ratio over faster-whisper's best"
    )
    return "\n".join(lines)


def _cells(row, report, first=None):
    seconds, processor = (first["seconds"], first["processor"]) if first else (row["seconds"], row["processor"])
    engine = row["engine"] + ("" if row["engine"] != OURS else ", first start" if first else ", later start")
    if seconds is None:
        return (row["workload"], engine, row["pipeline"], "not measured", *[""] * 5, row["why"])
    over = ratio(row, report["rows"], seconds)
    judged = row["engine"] == OURS and row["workload"] in ("talk", "clips") and not first
    peer = best(report["rows"], row["workload"], FASTER)
    met = verdict(over, RATIO, None) if judged else ""
    if met == "must" and peer and not as_good(row, peer):
        met = "less accurate"
    busy = first and first["others"] is not None and first["others"] >= load.LIMIT
    note = f"others used {first['others']:.1f} cores" if first and busy else "" if first else row["note"]
    return (
        *(row["workload"], engine, row["pipeline"], f"{seconds:.2f}", f"{processor:.2f}"),
        "-" if over is None else f"{over:.2f}",
        "-" if row["wer"] is None or first else f"{100 * row['wer']:.2f}",
        *(f"{RATIO:.2f}" if judged else "", met, note),
    )


def _left(cells):
    """Columns: names and notes to the left, numbers to the right."""
    names = aligned([(" | ".join(_padded(cells, i)), *row[3:9]) for i, row in enumerate(cells)])
    width = max(map(len, names))
    return [f"{line.ljust(width)}  {row[9]}".rstrip() for line, row in zip(names, cells, strict=True)]


def _padded(cells, i):
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    return [cells[i][column].ljust(widths[column]) for column in range(3)]


def _verdict(one):
    value = "not measured" if one["value"] is None else f"{one['value']:.2f}"
    return f"{one['name']}: {value} (must {one['must']:g}) {one['met']}{' - ' + one['why'] if one['why'] else ''}"
