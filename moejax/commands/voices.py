"""The one who speaks: `--enroll` and `--speaker` of `moejax transcribe`, `moejax enroll` and `moejax speakers`."""

import sys
from pathlib import Path

from moejax.commands import inputs, parser
from moejax.errors import BadValue

SURE = -0.5  # mean log-probability of a reading that stands as a text though nobody has looked at it
ENROLL = """Keeps a speaker's phrases under a name: from then on `moejax transcribe FILE --model base --speaker NAME`
reads with that voice in its ears. Nothing is trained, and nothing leaves this machine.

The phrases are recordings of two to six seconds, three or more, with what is said in each: in a table metadata.csv
(columns file, text) beside them, or in a .txt file of the same name. Without texts, --listen MODEL reads them: on a
terminal each reading is shown, and return takes it as it is, a line of text instead of it, a dash leaves it out;
elsewhere those that the model is sure of are taken.
"""
ENROLL_EPILOG = """examples:
  moejax enroll voice/ --name anna                       every recording of a folder
  moejax enroll 1.wav 2.wav 3.wav --name anna            with 1.txt, 2.txt and 3.txt beside them
  moejax transcribe talk.mp3 --model base --speaker anna
"""
SPEAKERS = """Who is enrolled on this machine: names, phrases, seconds. Where they lie says $MOEJAX_SPEAKERS, or else
~/.local/share/moejax/speakers.
"""
SPEAKERS_EPILOG = """examples:
  moejax speakers                       all of them
  moejax speakers export anna FOLDER    recordings and metadata.csv
  moejax speakers remove anna
"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "enroll",
        enroll,
        usage="moejax enroll FILE|FOLDER ... --name NAME [--listen MODEL] [--replace]",
        description=ENROLL,
        epilog=ENROLL_EPILOG,
    )
    ours.add_argument("files", nargs="*", metavar="FILE", help="recordings, folders, patterns")
    ours.add_argument("--name", metavar="NAME", help="of the speaker")
    ours.add_argument("--listen", metavar="MODEL", help="reads the phrases that have no text")
    ours.add_argument("--replace", action="store_true", help="take these phrases instead of those that were kept")
    usage = "moejax speakers [export|remove NAME]"
    ours = parser.add(commands, "speakers", speakers, usage=usage, description=SPEAKERS, epilog=SPEAKERS_EPILOG)
    ours.add_argument("words", nargs="*", metavar="", help="export NAME FOLDER, or remove NAME")


def known(asked: str | None) -> list:
    """Profiles of `--profiles`: "all", or names with commas. Errors: BadValue where nobody is enrolled, or for a name
    that a diarizer gives itself; as `profiles.load`.
    """
    if asked is None:
        return []
    from moejax.enrolment import profiles

    names = profiles.names() if asked == "all" else [name for name in asked.split(",") if name]
    if not names:
        raise BadValue("--profiles: nobody is enrolled; moejax enroll FILE... --name NAME does it")
    for name in names:
        if name.startswith("speaker") and name.removeprefix("speaker").isdecimal():
            raise BadValue(
                f"--profiles: a voice that nobody knows may be called {name!r}: enroll it under another name"
            )
    return [profiles.load(name) for name in names]


def enroll(options, left: list[str]) -> int:
    """`moejax enroll`; exit code."""
    options.parser.refuse(left)
    if not options.files:
        options.parser.print_help()
        return 2
    if not options.name:
        raise BadValue("--name is missing: under which name these phrases are kept")
    from moejax.audio import read
    from moejax.audio.constants import SAMPLE_RATE
    from moejax.decode.enrolled import fitting
    from moejax.enrolment import profiles
    from moejax.text.sentence import sentence

    profiles.place(options.name)  # a name that is none is refused before anything is read
    paths, texts = recordings(options.files, "enroll")
    if texts is None and options.listen:
        paths, texts = _listened(paths, options.listen)
    if texts is None:
        raise BadValue(
            f"{paths[0].name} has no text: give metadata.csv with columns file, text, or {paths[0].stem}.txt, "
            "or --listen MODEL"
        )
    waves = [read.load(path, min_seconds=0.3, max_seconds=20.0).samples for path in paths]
    order = fitting(waves)
    if not order:
        raise BadValue(f"{len(waves)} phrases, and none is short enough for a window; two to six seconds are good")
    folder = profiles.save(options.name, waves, texts, replace=options.replace)
    for place, (path, wave, text) in enumerate(zip(paths, waves, texts, strict=True)):
        used = "used" if place in order else "kept"
        print(f"{used}  {len(wave) / SAMPLE_RATE:5.1f} s  {path.name}: {sentence(text)}")
    print(f"{options.name} is enrolled by {len(order)} of {len(waves)} phrases in {folder}")
    return 0


def _listened(paths, model):
    """(phrases, texts) as a model reads them, confirmed by whoever sits at the terminal. Errors: none that is sure."""
    from moejax.loading import load

    recognizer, kept = load(model), []
    for path, heard in zip(paths, recognizer.transcribe([str(path) for path in paths]), strict=True):
        text, sure = heard.text.strip(), min((part.avg_logprob for part in heard.segments), default=float("-inf"))
        if sys.stdin.isatty():
            answer = input(f"{path.name}: {text}\n  [return: right; or what was said; - leaves it out] ").strip()
            text = "" if answer == "-" else answer or text
        elif sure < SURE:
            print(f"left out: {path.name}: {text!r}, of which the model is not sure", file=sys.stderr)
            text = ""
        if text:
            kept.append((path, text))
    if not kept:
        raise BadValue(f"--listen {model}: none of {len(paths)} readings is sure enough; write the texts down")
    return [path for path, _ in kept], [text for _, text in kept]


def speakers(options, left: list[str]) -> int:
    """`moejax speakers`; exit code."""
    options.parser.refuse(left)
    from moejax.audio.constants import SAMPLE_RATE
    from moejax.enrolment import profiles

    match options.words:
        case [] | ["list"]:
            for name in profiles.names():
                profile = profiles.load(name)
                seconds = sum(map(len, profile.waves)) / SAMPLE_RATE
                print(f"{name}\t{len(profile.waves)} phrases\t{seconds:.1f} s")
            if not profiles.names():
                print(f"nobody is enrolled in {profiles.place()}", file=sys.stderr)
        case ["export", name, folder]:
            profiles.export(name, Path(folder))
        case ["remove", name]:
            profiles.remove(name)
        case words:
            raise BadValue(f"moejax speakers {' '.join(words)}: list, export NAME FOLDER, or remove NAME")
    return 0


def recordings(arguments: list[str], what: str) -> tuple[list[Path], list[str] | None]:
    """Recordings that arguments mean, and their texts if they have any. Errors: one that is not there; as `inputs`."""
    found, missing = inputs.find(list(arguments))
    missing |= {inputs.STDIN: "standard input is for what is transcribed"} if None in [s.path for s in found] else {}
    if missing:
        raise BadValue("; ".join(f"{what} {name}: {reason}" for name, reason in missing.items()))
    from moejax.enrolment import folder

    paths = [source.path for source in found if source.path is not None]
    return paths, folder.texts(paths)


def enrolled(recognizer, asked):
    """The recogniser of `moejax transcribe`'s options with whom `--enroll` or `--speaker` name in its ears, as it is
    where neither is given. What `moejax personalize` chose is done with the model that it was chosen for.
    """
    from moejax.decode.enrolled import fitting
    from moejax.enrolment import profiles

    if asked.speaker is not None:
        profile = profiles.load(asked.speaker)
        chosen = profile.personal
        if chosen and chosen["base"] != profiles.digest_of(recognizer.params):
            print(
                f"moejax transcribe: {asked.speaker} was learnt by {chosen['model']}; {asked.model} is given the"
                " phrases alone",
                file=sys.stderr,
            )
            chosen = None
        if chosen and profile.adapter is not None and not asked.adapters:
            from moejax.loading import load

            recognizer = load(asked.model, weights=asked.weights, adapters=(str(profile.adapter),))
        if chosen and not chosen["context"]:
            return recognizer
        places = fitting(profile.waves)
        return recognizer.enroll([profile.waves[i] for i in places], [profile.texts[i] for i in places])
    if not asked.enroll:
        return recognizer
    paths, texts = recordings(asked.enroll, "--enroll")
    if texts is None:
        return recognizer.enroll(paths)
    waves = [recognizer.read(path) for path in paths]
    places = fitting(waves)
    if not places:
        raise BadValue(f"--enroll: none of {len(waves)} phrases leaves room in a window; two to six seconds are good")
    return recognizer.enroll([waves[i] for i in places], [texts[i] for i in places])
