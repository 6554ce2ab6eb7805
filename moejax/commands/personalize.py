"""`moejax personalize`: ten to two hundred recordings of one person; the way in which they are read best is kept."""

import sys
from pathlib import Path

from moejax.commands import parser, record, voices
from moejax.errors import BadValue

DESCRIPTION = """Learns one voice from ten to two hundred recordings of a few seconds, each with what is said in it (a
table metadata.csv with columns file, text, or a .txt file of the same name beside each).

Tried are the model as it is, up to five phrases in front of every window, LoRAs of two sizes on the decoder, and both
together: each reads recordings that it did not learn from (four parts in turn). The one with the fewest errors is kept
under the name, but phrases in front where nothing is clearly better than those: a dozen recordings decide little, and
most people are read better so. What it says to expect of new recordings is measured the same way, the choosing
included. Nothing leaves this machine.
"""
EPILOG = """examples:
  moejax personalize voice/ --name anna --model tiny.en
  moejax transcribe talk.mp3 --model tiny.en --speaker anna
  moejax personalize voice/ --name anna --model tiny.en --record      shows sentences and records them first
  moejax speakers export anna FOLDER        the recordings, and adapter/ for PEFT
  moejax export --speaker anna --to ctranslate2 --output D            the model with the LoRA merged

Fifty recordings take a few minutes with tiny.en on two cores. Three recordings are enough for moejax enroll.
"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "personalize",
        run,
        usage="moejax personalize FILE|FOLDER ... --name NAME --model MODEL [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add = ours.add_argument
    add("files", nargs="*", metavar="FILE", help="recordings, folders, patterns")
    add("--name", metavar="NAME", help="of the speaker")
    add("--model", metavar="MODEL", help="a published model: a name or a folder")
    add("--record", action="store_true", help="records sentences into FOLDER first; goes on where it was ended")
    add("--sentences", metavar="FILE", help="of --record, one a line; default: forty English ones")
    add("--language", metavar="CODE", help="of the recordings (default: the model's, or en)")
    add(
        "--normalizer",
        metavar="NAME",
        default="english",
        help="how texts are compared: english (default), basic, lower",
    )
    add(
        "--steps", metavar="N", type=parser.whole, help="training steps of a LoRA (default: 3 a recording, 40 at least)"
    )
    add("--learning_rate", metavar="X", type=float, default=3e-4, help="of a LoRA (default 0.0003)")
    add("--seed", metavar="N", type=parser.whole, default=0, help="draws the parts and the LoRAs' beginnings")
    add("--replace", action="store_true", help="take these recordings instead of those that were kept")


def run(options, left: list[str]) -> int:
    """Prints the table and what was kept; exit code."""
    options.parser.refuse(left)
    if not options.files:
        options.parser.print_help()
        return 2
    for name in ("name", "model"):
        if not getattr(options, name):
            raise BadValue(f"--{name} is missing; moejax personalize --help says what it wants")
    if options.steps == 0:
        raise BadValue("--steps is 0; a LoRA learns in at least one step")
    if not 0 < options.learning_rate <= 1:
        raise BadValue(f"--learning_rate is {options.learning_rate:g}; above 0 and at most 1")
    from moejax.enrolment import profiles

    folder = profiles.place(options.name)
    if folder.exists() and not options.replace:
        raise BadValue(f"speaker {options.name!r} is enrolled already; --replace takes the new recordings instead")
    if options.record:
        _record(options)
    elif options.sentences:
        raise BadValue("--sentences are what --record shows; without it nothing is recorded")
    paths, texts = voices.recordings(options.files, "personalize")
    if texts is None:
        raise BadValue(
            f"{paths[0].name} has no text: give metadata.csv with columns file, text, or {paths[0].stem}.txt"
        )
    from moejax.personal import choice

    choice.folds(len(paths))  # too few are refused before anything is read
    recordings = _read(paths, texts)
    learnt, kept = _learn(options, recordings)
    print(_table(options, recordings, learnt, kept))
    return 0


def _record(options):
    if len(options.files) != 1 or Path(options.files[0]).is_file():
        raise BadValue("--record records into one folder: moejax personalize FOLDER --name NAME --model MODEL --record")
    if not sys.stdin.isatty():
        raise BadValue("--record asks whoever sits at the terminal; standard input is none")
    from moejax.audio import microphone

    count = record.session(record.sentences(options.sentences), Path(options.files[0]), microphone.record)
    print(f"{count} sentences are recorded in {options.files[0]}")


def _read(paths, texts):
    from moejax.audio import read
    from moejax.personal.material import LONGEST, Recording
    from moejax.text.sentence import sentence

    waves = [read.load(path, min_seconds=0.3, max_seconds=LONGEST).samples for path in paths]
    return [Recording(wave, sentence(text)) for wave, text in zip(waves, texts, strict=True)]


def _learn(options, recordings):
    from moejax.convert import find, peft_lora
    from moejax.enrolment import profiles
    from moejax.loading import load
    from moejax.personal import learn
    from moejax.text import languages, normalize

    recognizer = load(options.model)
    if recognizer.system.role != "base":
        raise BadValue(f"{options.model} is a trained system; a voice is learnt on a published model")
    language = languages.code_of(options.language) if options.language else recognizer.language or "en"
    settings = {"language": language, "temperature": 0.0}
    recognizer.check(**settings)
    learnt = learn.learn(
        recognizer,
        recordings,
        normalize.get(options.normalizer),
        options=settings,
        steps=options.steps,
        rate=options.learning_rate,
        seed=options.seed,
        told=_told,
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    found, model = learnt.promise, find.published_name(options.model) or str(options.model)
    rates = {name: getattr(found, name) for name in ("published", "expected", "low", "high")}
    facts = {
        **{"model": model, "place": str(find.model(options.model).resolve())},
        **{"base": profiles.digest_of(recognizer.params), "recordings": len(recordings)},
        **{"rank": found.way.rank, "context": found.way.context, **rates},
    }
    adapter = learnt.adapter

    def write(folder: Path):
        assert adapter is not None  # asked for where there is one
        peft_lora.save(folder, recognizer.config, adapter, base=model)

    kept = profiles.save(
        options.name,
        [one.wave for one in recordings],
        [one.text for one in recordings],
        replace=options.replace,
        personal=facts,
        write_adapter=None if adapter is None else write,
    )
    return learnt, kept


def _told(what, done, of):
    if sys.stderr.isatty():
        print(f"\r\033[K{what}: {done} of {of}", end="", file=sys.stderr, flush=True)


def _table(options, recordings, learnt, kept):
    from moejax.personal import choice

    words = sum(one.words for one in next(iter(learnt.counts.values())))
    seconds, wide = sum(one.seconds for one in recordings), max(len(way.name) for way in learnt.counts)
    lines = [
        f"{len(recordings)} recordings of {options.name}, {words} words, {seconds:.0f} s;"
        " each read by what did not learn from it",
        "",
        f"{'':{wide + 2}}  errors   WER %",
    ]
    for way, counts in learnt.counts.items():
        errors = sum(one.errors for one in counts)
        mark = "*" if way == learnt.promise.way else " "
        lines.append(f"{mark} {way.name:{wide}}  {errors:6d}  {100 * errors / max(words, 1):6.1f}")
    found = learnt.promise
    interval = f"[{100 * found.low:.0f}, {100 * found.high:.0f}]"
    if found.expected < found.published:
        said = f"from {100 * found.published:.0f} % to {100 * found.expected:.0f} % {interval} of the words wrong"
    else:
        said = f"nothing reads clearly better than that: {100 * found.expected:.0f} % {interval} of the words wrong"
    lines += [
        "",
        f"{found.way.name}: {said}, expected of {choice.NEW} new recordings like these (95 % of cases)",
        f"kept in {kept}; moejax transcribe FILE --model {options.model} --speaker {options.name}",
    ]
    return "\n".join(lines)
