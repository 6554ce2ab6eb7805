"""`moejax recipe`: a known corpus of talks or speakers, checked and described, as files that other commands read."""

from pathlib import Path

from moejax.commands import parser
from moejax.errors import BadValue

DESCRIPTION = """Reads a corpus where it was unpacked, checks that sound and references fit, and says what it is like.

Of talks it writes OUTPUT/PART/NAME.rttm (.uem: what is scored, .stm: words, where the corpus has them), manifests for
lhotse (recordings.jsonl.gz, supervisions.jsonl.gz) and card.json. Sound is neither copied nor changed. A part that is
not there is left out, a file that is missing in one is an error.

Of single speakers it writes a table, FOLDER/metadata.csv, with which data.source=folder reads them: talks are
simulated of them (configs/diarize.py).
"""
EPILOG = """examples:
  moejax recipe voxconverse /data/voxconverse --output refs/voxconverse
  moejax diarize /data/voxconverse/dev/audio --model runs/diarize --against refs/voxconverse/dev
  moejax recipe mini_librispeech /data/mini_librispeech
  moejax diarizer --config configs/diarize.py:mini_librispeech --config.data.root=/data/mini_librispeech --workdir W

exit codes: 0 done, 1 refused (one line names the file and what the corpus ought to have)
"""


def add(commands) -> None:
    usage = "moejax recipe NAME FOLDER [--output OUTPUT]"
    ours = parser.add(
        commands, "recipe", run, usage=usage, description=DESCRIPTION, epilog=EPILOG, more=lambda: listed()
    )
    add = ours.add_argument
    add("name", nargs="?", metavar="NAME", help="which corpus (below)")
    add("folder", nargs="?", metavar="FOLDER", help="where it was unpacked")
    add("--output", metavar="OUTPUT", help="a new folder for references, or the table of single speakers")


def listed() -> str:
    """The recipes and the layout of each, for the help."""
    import textwrap

    from moejax.diarize.recipes.table import RECIPES

    lines = []
    for name, recipe in RECIPES.items():
        about = f"{recipe.about}: {recipe.layout}"
        lines += textwrap.wrap(f"{name:<17}{about}", 119, initial_indent="  ", subsequent_indent=" " * 19)
    return "recipes:\n" + "\n".join(lines) + "\n"


def run(options, left: list[str]) -> int:
    """Writes what the recipe reads; exit code."""
    options.parser.refuse(left)
    if not options.name:
        options.parser.print_help()
        return 2
    from moejax.diarize.recipes import table, written

    recipe = table.find(options.name)
    if not options.folder:
        raise BadValue(
            f"the folder is missing: moejax recipe {options.name} FOLDER; {options.name} has {recipe.layout}"
        )
    place = table.place(options.name, options.folder)
    if recipe.kind == "speakers":
        file = Path(options.output or place.root / "metadata.csv")
        for part, found in written.write_speakers(place, file).items():
            print(f"{part}: {found['utterances']} utterances of {found['speakers']} speakers")
        print(file)
        return 0
    if not options.output:
        raise BadValue("--output is missing: a new folder for the references")
    for part, found in written.write_talks(place, Path(options.output)).items():
        print(written.line(part, found))
    print(options.output)
    return 0
