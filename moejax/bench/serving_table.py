"""The table of `moejax bench serve`."""

from moejax.bench.engines import FASTER, OURS
from moejax.bench.table import aligned

HEAD = ("server", "start s", "load s", "both", "real time", "p50 s", "p95 s", "processor s", "in turn s", "as alone")
HEAD = (*HEAD, "WER %", "ratio")


def text(report: dict) -> str:
    """A line for each server, the ratios that matter, and how it was measured."""
    peers = [row["seconds"] for row in report["rows"] if row["engine"] == FASTER and row["seconds"]]
    cells = [HEAD, *(_cells(row, report, min(peers, default=None)) for row in report["rows"])]
    lines = [
        f"{line}  {row['why'] or row['note']}".rstrip() if row else line
        for line, row in zip(aligned(cells), [None, *report["rows"]], strict=True)
    ]
    lines += [
        f"{row['pipeline']}: first start, nothing compiled: {row['first_start']:.1f} s"
        for row in report["rows"]
        if row["engine"] == OURS and row["first_start"]
    ]
    machine, settings = report["machine"], report["settings"]
    return "\n".join(
        [
            *lines,
            "",
            f"{settings['clients']} clients at once, one recording each, {report['shortest']:.1f} to"
            f" {report['longest']:.1f} s, {report['audio']:.0f} s in all; {settings['model']}, language"
            f" {settings['language']}; {machine['cpu']}, {machine['cores']} cores; load {report['load'][0]:.1f} at the"
            f" end; {report['seconds']:.0f} s in all",
            "start: until it takes requests; real time: load over the recordings' length; in turn: every recording by"
            " itself, one client; as alone: texts that are those; ratio: load over the quickest of faster-whisper;"
            f" medians of {settings['calls']} turns, the servers taking turns",
        ]
    )


def _cells(row: dict, report: dict, peer: float | None) -> tuple[str, ...]:
    name = f"{row['engine']} {row['pipeline']}"
    if row["seconds"] is None:
        return (name, "not measured", *[""] * (len(HEAD) - 2))
    numbers = (row["start"], row["seconds"], row["start"] + row["seconds"], row["seconds"] / report["audio"])
    return (
        name,
        *(f"{number:.{places}f}" for number, places in zip(numbers, (1, 1, 1, 3), strict=True)),
        *(_number(row[key]) for key in ("p50", "p95", "processor", "alone_seconds")),
        f"{row['as_alone']}/{len(row['texts'])}",
        "-" if row["wer"] is None else f"{100 * row['wer']:.2f}",
        "-" if peer is None else f"{row['seconds'] / peer:.2f}",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
