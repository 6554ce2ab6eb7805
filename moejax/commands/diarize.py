"""`moejax diarize`: who speaks when in a recording."""

import argparse
import functools
import math
from pathlib import Path

from moejax.commands import inputs, parser, voices
from moejax.errors import BadValue

DESCRIPTION = """Writes who speaks when in recordings as RTTM (NIST): the recording, the start and length of each turn
in seconds, the speaker. Speakers are called speaker1, speaker2 ... in the order in which they begin.

MODEL is a workdir in which the stage diarizer was trained (configs/diarize.py). A recording longer than the talks that
it learnt from is heard in windows that overlap.

--profiles NAMES (or all) names voices that moejax enroll knows: turns of somebody who sounds like one of them carry
that name, everybody else keeps his number. How alike is enough was measured on the talks of dev.

--against FOLDER compares with references of the same names in the folder and below it (.rttm; a .uem says what is
scored) and prints the diarization error rate, beside that of one speaker who always speaks. Where there is a .stm,
--words MODEL reads the words too: WDER is the share of them under a wrong speaker, cpWER their errors speaker by
speaker.
"""
EPILOG = """examples:
  moejax diarize talk.wav --model runs/diarize
  moejax diarize recordings/ --model runs/diarize --output turns/
  moejax diarize talk.wav --model runs/diarize --profiles anna,ben
  moejax diarize recordings/ --model runs/diarize --against references/ --collar 0.25
  moejax transcribe talk.wav --model base --diarize runs/diarize --format srt          words with their speakers

exit codes: 0 done, 1 refused, or a recording could not be read (one line says why)
"""


def add(commands) -> None:
    usage = "moejax diarize FILE... --model WORKDIR [options]"
    ours = parser.add(commands, "diarize", run, usage=usage, description=DESCRIPTION, epilog=EPILOG)
    parser.takes_recordings(ours, "WORKDIR", "a workdir with a diarizer")
    add = ours.add_argument
    add("--speakers", type=parser.whole, default=0, metavar="N", help="how many speak, where that is known")
    add("--profiles", metavar="NAMES", help="enrolled voices to name, with commas, or all (moejax speakers lists them)")
    add("--threshold", type=_share, metavar="P", help="probability from which on somebody speaks (default: dev chose)")
    add("--output", metavar="FOLDER", help="a file for each recording there; without it all on standard output")
    add("--against", metavar="FOLDER", help="references: compare, and write turns only with --output")
    add("--words", metavar="MODEL", help="with references in .stm: read the words too, and say how many went where")
    add("--collar", type=_seconds, default=0.0, metavar="S", help="seconds around borders that are not scored")
    add("--skip_overlap", action="store_true", help="time in which several speak is not scored")


def _share(text: str) -> float:
    value = _seconds(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"wants a probability between 0 and 1, got {text!r}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"wants a number, 0 or more, got {text!r}")
    return value


def run(options, left: list[str]) -> int:
    """Writes or prints the turns, or how they compare; exit code."""
    if not parser.told(options, left, "a workdir with a diarizer (configs/diarize.py trains one)"):
        return 2
    if options.words and not options.against:
        raise BadValue("--words compares who said what with references: give --against, or moejax transcribe --diarize")
    sources, missing = inputs.find(options.files)
    recordings = [(source, source.path) for source in sources if source.path]
    if options.output:
        inputs.check_apart([source for source, _ in recordings])
    people = voices.known(options.profiles)
    # here: help does not wait for JAX
    from moejax.commands.progress import Progress
    from moejax.diarize import listening, references
    from moejax.diarize.turns import rttm, write_rttm

    there = references.beside(options.against, [path for _, path in recordings]) if options.against else {}
    for argument, reason in missing.items():
        print(f"{argument}: {reason}")
    diarizer, failed, rows, said = listening.opened(options.model), bool(missing), [], []
    known = {one.name: diarizer.voice(one.waves) for one in people}
    with Progress([source for source, _ in recordings]) as shown:
        for source, recording in shown.each(recordings):
            try:
                audio_S = _read(recording)
                turns = diarizer(audio_S, options.speakers, options.threshold)
                turns = diarizer.named(audio_S, turns, known) if known else turns
            except (ValueError, OSError) as error:
                failed = True
                shown.print(f"{source.name}: {error}\n")
                continue
            named = {"_".join(Path(source.stem).name.split()): turns}
            if options.output:
                path = Path(options.output) / f"{source.stem}.rttm"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_rttm(path, named)
                shown.print(f"{path}\n")
            elif not options.against:
                shown.print(rttm(named))
            if options.against:
                by = {"collar": options.collar, "skip_overlap": options.skip_overlap}
                rows.append((source.name, there[recording].compared(turns, **by)))
                if options.words and there[recording].said is not None:
                    said.append((source.name, _who_said_what(options.words, audio_S, turns, there[recording].said)))
    if rows:
        _print_rows(rows)
    if said:
        _print_said(said)
    return int(failed)


def _read(path):
    """Samples at 16 kHz; what can be heard of a damaged file is."""
    from moejax.audio import read

    return read.load(path, **{**read.ANYTHING, "whole": False}).samples


def _print_rows(rows) -> None:
    from moejax.score import diarization

    width = max(len(name) for name, _ in rows)
    print(f"{'':<{width}}     DER  missed   false  confus     JER  speakers  one speaker")
    pooled = ("all", tuple(diarization.pooled([both[i] for _, both in rows]) for i in (0, 1)))
    for name, (ours, always) in [*rows, *([pooled] if len(rows) > 1 else [])]:
        figures = "".join(f"{ours.row()[key]:8.1f}" for key in ("der", "missed", "false_alarm", "confusion", "jer"))
        counted = f"{ours.speakers[1]:>3} of {ours.speakers[0]:<3}"
        print(f"{name:<{width}}{figures}  {counted}{always.row()['der']:10.1f}")


@functools.cache
def _recognizer(model: str):
    from moejax.loading import load

    return load(model)


def _who_said_what(model: str, audio_S, turns, reference):
    """(who said what, the same of one speaker who says everything)."""
    from moejax.diarize import references, said
    from moejax.score import attributed

    transcript = said.attributed(_recognizer(model).transcribe(audio_S, word_timestamps=True), turns)
    heard = references.said_of(said.words_of(transcript))
    return attributed.compare(reference, heard), attributed.compare(reference, [(word, "one") for word, _ in heard])


def _print_said(said) -> None:
    from moejax.score import attributed

    width = max(len(name) for name, _ in said)
    print(f"\n{'who said what':<{width}}    WDER   cpWER   words   one speaker: WDER   cpWER")
    pooled = ("all", tuple(attributed.pooled([both[i] for _, both in said]) for i in (0, 1)))
    for name, (ours, one) in [*said, *([pooled] if len(said) > 1 else [])]:
        figures = f"{100 * ours.wder:8.1f}{100 * ours.cpwer:8.1f}{ours.words:8}"
        print(f"{name:<{width}}{figures}{100 * one.wder:20.1f}{100 * one.cpwer:8.1f}")
