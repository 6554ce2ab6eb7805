"""What was measured as plain values, and as a table for people."""

import os
import platform
from pathlib import Path

import numpy as np


def times(ours, theirs, jobs) -> dict:
    """Medians, clean counts, every call, and the ratio over the fastest peer that was measured.

    A ratio stands only when all have their clean calls: with two forms of a peer the slower could hide the faster.
    """
    found = {"ours_seconds": ours.median(), "ours_clean": len(ours.clean), "ours_calls": ours.calls}
    found |= {"ours_repeat": ours.repeat, "peer_seconds": None, "ratio": None, "peers": []}
    for contestant, job in zip(theirs, jobs, strict=True):
        found["peers"].append(
            {
                "job": job,
                "seconds": contestant.median(),
                "clean": len(contestant.clean),
                "calls": contestant.calls,
                "repeat": contestant.repeat,
            }
        )
    missing = next((c for c in (ours, *theirs) if c.median() is None), None)
    if missing is not None:
        who = "ours" if missing is ours else "the peer"
        return found | {"status": "not measured", "why": f"{who}: {missing.why_not()}"}
    if theirs:
        best = min(found["peers"], key=lambda peer: peer["seconds"])
        found |= {"peer_seconds": best["seconds"], "peer_clean": best["clean"], "peer_job": best["job"]}
        found["ratio"] = found["ours_seconds"] / found["peer_seconds"]
    return found | {"status": "measured", "why": ""}


def floors(seconds, works, peaks) -> dict:
    """The floor of a row in seconds at the measured peaks, and how many times above it ours is; None if unknown."""
    found = {"floor_seconds": None, "above_floor": None}
    if works is None or not peaks or not (peaks["flops_per_s"] and peaks["bytes_per_s"]):
        return found
    least = sum(work.seconds(peaks["flops_per_s"], peaks["bytes_per_s"]) for work in works)
    found |= {"floor_seconds": least, "flops": sum(w.flops for w in works), "bytes": sum(w.bytes for w in works)}
    if seconds:
        found["above_floor"] = seconds / least
    return found


def difference(ours: Path, theirs: Path, *, tokens: bool) -> dict:
    """The largest absolute difference of two saved arrays, or the share of tokens that differ."""
    a, b = np.load(ours), np.load(theirs)
    if a.shape != b.shape:
        return {"status": "measured", "why": f"shapes {a.shape} and {b.shape}", "difference": float("inf")}
    apart = np.mean(a != b) if tokens else np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
    return {"status": "measured", "why": "", "difference": float(apart), "largest": float(np.abs(a).max())}


def verdict(value, must, aim) -> str:
    """aim, must or MISSED: the best bar that the value is under; empty without bars."""
    if value is None or (must is None and aim is None):
        return ""
    if aim is not None and value <= aim:
        return "aim"
    return "must" if must is not None and value <= must else "MISSED" if must is not None else ""


def machine() -> dict:
    """Where it was measured."""
    model = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


HEAD = ("item", "ours ms (n)", "peer ms (n)", "ratio", "must", "aim", "met", "floor ms", "x floor")


def text(report: dict) -> str:
    """The table, then the differences, then how it was measured."""
    lines = []
    if report["rows"]:
        lines += aligned([HEAD, *(_cells(row) for row in report["rows"])])
    if report["differences"]:
        head = ("difference to", "largest", "must", "aim", "met")
        lines += ["", *aligned([head, *(_difference_cells(row) for row in report["differences"])])]
    broken = [row for row in (*report["rows"], *report["differences"]) if row["why"]]
    lines += ["", *(f"{row['name']}: {row['status']}: {row['why']}" for row in broken)] if broken else []
    return "\n".join([*lines, "", *_footer(report)])


def _footer(report) -> list[str]:
    s, device = report["settings"], next(iter(report["sides"].values()))
    machine_ = report["machine"]
    found = [
        f"{s['size']}, batch {s['batch']} x {s['seconds']:g} s, {s['tokens']} tokens, {s['dtype']}, random weights;"
        f" {device['kind']}, {machine_['cpu']}, {machine_['cores']} cores; {report['seconds']:.0f} s in all",
        f"medians of {report['counted']}, the sides taking turns",
    ]
    peaks = report["peaks"]
    if peaks and not peaks["why"]:
        giga = {name: peaks[name] / 1e9 for name in ("flops_per_s", "bytes_per_s")}
        found.append(f"floors at {giga['flops_per_s']:.1f} GFLOP/s (sgemm) and {giga['bytes_per_s']:.1f} GB/s (copy)")
    elif peaks:
        found.append(f"no floors: {peaks['why']}")
    return found


def _cells(row):
    ms, count = row.get("ours_seconds"), row.get("ours_clean", 0)
    ours = f"{1000 * ms:.1f} ({count})" if ms else f"- ({count})"
    peer = f"{1000 * row['peer_seconds']:.1f} ({row['peer_clean']})" if row.get("peer_seconds") else "-"
    ratio = f"{row['ratio']:.3f}" if row.get("ratio") else "-" if row["status"] == "measured" else "not measured"
    least = f"{1000 * row['floor_seconds']:.1f}" if row.get("floor_seconds") else "-"
    above = f"{row['above_floor']:.2f}" if row.get("above_floor") else "-"
    met = verdict(row.get("ratio"), row["must"], row["aim"])
    return (row["name"], ours, peer, ratio, _bar(row["must"]), _bar(row["aim"]), met, least, above)


def _difference_cells(row):
    found = row.get("difference")
    met = verdict(found, row["must"], row["aim"])
    return (row["name"], "not measured" if found is None else f"{found:.2g}", _bar(row["must"]), _bar(row["aim"]), met)


def _bar(value) -> str:
    return "-" if value is None else f"{value:g}" if value < 0.01 else f"{value:.2f}"


def aligned(cells) -> list[str]:
    """Rows of text as columns: the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]
    return [line.rstrip() for line in lines]


def write(path: Path, report: dict) -> None:
    """The report as JSON, whole or not at all."""
    from moejax.runtime.files import write_json

    write_json(path, report)
