"""`moejax pronounce`: how well a recording is pronounced."""

from pathlib import Path

from moejax.commands import inputs, parser
from moejax.errors import BadValue

FORMATS = ("csv", "json", "html")
DESCRIPTION = """Judges how recordings are pronounced: scores as experts give them, each word and sound from 0 to 100.

The workdir has what two stages learnt, or one of them:
  rater       accuracy, fluency or whatever experts scored a corpus for (rater.scores), from the frozen encoder's states
  goodness    how well each letter, or each initial, final and tone of Mandarin, fits its sound (ctc.steps, ctc.units)

What should be said stands in metadata.csv (columns file and text) beside the recordings, or in a .txt of the same name,
or in --text; where nothing of that is there, what the model hears counts, which mends what was said wrongly.
Mandarin is written in hanzi (pip install 'moejax[pron]') or in numbered pinyin: ni3 hao3; another reading of a
character stands behind it: 还{huan2}.

files: pronunciation.csv (all recordings), NAME.json (its words and sounds), pronunciation.html (coloured words, sound)
"""
EPILOG = """examples:
  moejax pronounce talk.wav --model runs/english --text "what should be said"
  moejax pronounce recordings/ --model runs/mandarin --to html --output judged/
  moejax rater    --config configs/pronounce.py --config.data.root=DATA --workdir runs/english    learns from experts
  moejax goodness --config configs/mandarin.py --workdir runs/mandarin                            from speech alone

exit codes: 0 done, 1 refused, or a recording could not be judged (one line says why)
"""


def add(commands) -> None:
    usage = "moejax pronounce FILE... --model WORKDIR [options]"
    ours = parser.add(commands, "pronounce", run, usage=usage, description=DESCRIPTION, epilog=EPILOG)
    parser.takes_recordings(ours, "WORKDIR", "a workdir with a rater, a calibrated head, or both")
    add = ours.add_argument
    add("--text", metavar="TEXT", help="what should be said in the one recording")
    add("--language", metavar="CODE", default="en", help="of what is heard where there is no text (default en)")
    add("--to", metavar="FORMATS", default="csv", help="csv (default), json, html; with commas")
    add("--output", metavar="FOLDER", default=".", help="where the files go (default: here)")


def run(options, left: list[str]) -> int:
    """Writes the judgements; exit code."""
    if not parser.told(options, left, "a workdir with a rater or a calibrated head"):
        return 2
    formats = options.to.split(",")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise BadValue(f"--to: unknown format {unknown[0]!r}; known: {', '.join(FORMATS)}")
    # here: help does not wait for JAX
    from moejax.commands.align import with_texts
    from moejax.commands.progress import Progress
    from moejax.pronounce import judging

    sources, missing = inputs.find(options.files)
    for argument, reason in missing.items():
        print(f"{argument}: {reason}")
    recordings = with_texts([source for source in sources if source.path], options.text)
    inputs.check_apart([one.source for one in recordings])
    judge = judging.opened(options.model, options.language)
    found, sounds, failed = {}, {}, bool(missing)
    with Progress([one.source for one in recordings]) as shown:
        for one in shown.each(recordings):
            try:
                audio_S = judge.recognizer.read(one.source.path)
                found[one.source.stem] = judge(audio_S, one.text)
                sounds[one.source.stem] = audio_S if "html" in formats and len(sounds) < MOST_SOUNDS else audio_S[:0]
                shown.print(_line(one.source.name, found[one.source.stem]) + "\n")
            except BadValue as error:
                failed = True
                shown.print(f"{one.source.name}: {error}\n")
    _write(options, formats, found, sounds)
    return int(failed)


MOST_SOUNDS = 100  # as many as a page holds (pronounce.page.MOST)


def _line(name, one) -> str:
    told = [f"{score} {value:.1f} +- {error:.1f}" for score, (value, error) in one.scores.items()]
    told += [f"words {one.sounds:.0f} of 100"] if one.sounds is not None else []
    return f"{name}: {', '.join(told) or 'nothing to judge'}"


def _write(options, formats, found, sounds) -> None:
    from moejax.pronounce import files, page
    from moejax.runtime.files import write_text

    if not found:
        return
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    if "csv" in formats:
        write_text(output / "pronunciation.csv", files.table(found))
        print(output / "pronunciation.csv")
    for stem, one in found.items() if "json" in formats else ():
        path = output / f"{stem}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, files.as_json(stem, one))
        print(path)
    if "html" in formats:
        write_text(output / "pronunciation.html", page.page(found, sounds, "Pronunciation"))
        print(output / "pronunciation.html")
