"""`moejax align`: when every word, letter or phone of a recording sounds."""

import dataclasses
from pathlib import Path

from moejax.commands import inputs, parser
from moejax.errors import BadValue

DESCRIPTION = """Places the words of recordings in their sound: TextGrid (Praat), CTM (NIST), JSON.

What is said stands in metadata.csv (columns file and text) beside the recordings, or in a .txt of the same name, or in
--text; where nothing of that is there, what the model hears is placed.

methods:
  ctc         a head on the encoder that a workdir learnt (stage ctc, ctc.steps above 0): words and letters, or phones
              where it learnt these (ctc.units=phones), any length
  attention   the decoder's cross-attention, any model: words, 30 s at most
The default is the workdir's head where it has one.

--against FOLDER compares with references of the same names (.TextGrid, .ctm, .wrd; of --tier phones .TextGrid, .phn)
and prints how far borders lie from them, beside an even division of the recording.
"""
EPILOG = """examples:
  moejax align talk.wav --model tiny.en --text "what was said"
  moejax ctc --config configs/align.py --config.data.root=corpus --workdir runs/align      trains a head, on texts alone
  moejax align recordings/ --model runs/align --to textgrid,json --output aligned/
  moejax align recordings/ --model runs/align --against references/
  moejax ctc --config configs/align.py:phones --config.data.root=corpus --workdir runs/phones
  moejax align recordings/ --model runs/phones --against references/ --tier phones

exit codes: 0 done, 1 refused, or a recording could not be aligned (one line says why)
"""


def add(commands) -> None:
    usage = "moejax align FILE... --model MODEL [options]"
    ours = parser.add(commands, "align", run, usage=usage, description=DESCRIPTION, epilog=EPILOG)
    parser.takes_recordings(ours, "MODEL", "a workdir, or any model that moejax transcribe takes")
    add = ours.add_argument
    add("--method", metavar="NAME", help="ctc or attention")
    add("--text", metavar="TEXT", help="what is said in the one recording")
    add("--language", metavar="CODE", default="en", help="of the texts (default en)")
    add("--to", metavar="FORMATS", default="textgrid", help="textgrid (default), ctm, json; with commas")
    add("--output", metavar="FOLDER", default=".", help="where the files go (default: here)")
    add("--against", metavar="FOLDER", help="references: compare, and write nothing")
    add("--tier", metavar="NAME", default="words", help="what is compared: words (default) or phones")


def run(options, left: list[str]) -> int:
    """Writes the alignments, or prints how they compare; exit code."""
    if not parser.told(options, left, "a workdir with a CTC head, or any model"):
        return 2
    # here: help does not wait for JAX
    from moejax.align import files
    from moejax.runtime.files import write_text

    formats = options.to.split(",")
    if unknown := [name for name in formats if name not in files.FORMATS]:
        raise BadValue(f"--to: unknown format {unknown[0]!r}; known: {', '.join(files.FORMATS)}")
    if options.tier not in files.TIERS:
        raise BadValue(f"--tier: unknown tier {options.tier!r}; known: {', '.join(files.TIERS)}")
    sources, missing = inputs.find(options.files)
    for argument, reason in missing.items():
        print(f"{argument}: {reason}")
    recordings = with_texts([source for source in sources if source.path], options.text)
    if options.against:
        return _compare(options, recordings)
    failed = list(missing)
    placer = _opened(options)
    for shown, source, placed, seconds in _placed(placer, recordings, failed):
        for name in formats:
            suffix, write = files.FORMATS[name]
            path = Path(options.output) / f"{source.stem}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, write(placed, seconds, path.stem, placer.units))
            shown.print(f"{path}\n")
    return int(bool(failed))


@dataclasses.dataclass(frozen=True)
class Recording:
    source: inputs.Source
    text: str | None


def with_texts(sources, given):
    from moejax.enrolment import folder

    if given is not None:
        if len(sources) != 1:
            raise BadValue(f"--text is what is said in one recording; there are {len(sources)}")
        return [Recording(sources[0], given)]
    texts = folder.texts([source.path for source in sources]) or [None] * len(sources)
    return [Recording(source, text) for source, text in zip(sources, texts, strict=True)]


def _opened(options):
    from moejax.align import placing

    return placing.opened(options.model, options.method, options.language)


def _placed(placer, recordings, failed: list):
    """(progress, source, words, seconds) of each recording in turn; what is wrong with the others is printed, and their
    names go to `failed`.
    """
    from moejax.audio.constants import SAMPLE_RATE
    from moejax.commands.progress import Progress

    with Progress([one.source for one in recordings]) as shown:
        for one in shown.each(recordings):
            try:
                audio_S = placer.recognizer.read(one.source.path)
                placed = placer(audio_S, one.text)
            except BadValue as error:
                failed.append(one.source.name)
                shown.print(f"{one.source.name}: {error}\n")
                continue
            yield shown, one.source, placed, len(audio_S) / SAMPLE_RATE


def _compare(options, recordings):
    from moejax.align import files, placing
    from moejax.score import borders

    found, even, failed = [], [], []
    read = files.TIERS[options.tier]
    there = {path.stem: path for path in sorted(Path(options.against).rglob("*")) if path.suffix in read}
    if absent := [one.source.name for one in recordings if one.source.path.stem not in there]:
        raise BadValue(f"--against {options.against} has no reference of {absent[0]}; looked for {', '.join(read)}")
    placer = _opened(options)
    if options.tier == "phones" and placer.units != "phones":
        raise BadValue(f"{options.model} has no head of phones: moejax ctc --config configs/align.py:phones ...")
    for _, source, placed, seconds in _placed(placer, recordings, failed):
        true = files.reference(there[source.path.stem], options.tier)
        ours = placing.borders(placed) if options.tier == "words" else files.inside(placed)
        found.append(borders.compare(ours, true))
        even.append(borders.compare(borders.evenly([word for word, _, _ in true], seconds), true))
    for name, several in (("aligned", found), ("evenly", even)):
        row = borders.pooled(several).row()
        shown = ", ".join(
            f"{key} {value:.2f}" if "within" in key else f"{key} {value:.0f}" for key, value in row.items()
        )
        print(f"{name:<9}{shown}")
    return int(bool(failed))
