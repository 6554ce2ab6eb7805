"""`moejax export`: a system of a workdir for another library."""

from pathlib import Path

from moejax.commands import parser
from moejax.errors import BadValue

NEEDED = ("workdir", "to", "output")
MERGED = ("speaker", "model", "to", "output", "dtype", "quantization")  # what --speaker goes with
DESCRIPTION = """A trained system for other libraries, with a model card.

formats:
  hf           Hugging Face folder: transformers, and moejax transcribe --model D
  openai       D/model.pt: whisper.load_model("D/model.pt")
  ctranslate2  faster_whisper.WhisperModel("D"); needs pip install 'moejax[ctranslate2]'
  peft         LoRA folders for PEFT; without --system every adapter and expert of the workdir

These formats hold one network, so a mixture is merged on one route (not with peft, unless --route is given):
  --route average          mean of the gate's weights over the training part (the default)
  --route cohort:B         mean over one cohort, or speaker:F03 over one speaker
  --route expert:2         one expert alone
  --route 0.5,0.5,0        weights of your own, one for each expert

--speaker NAME takes the place of --workdir: the published model with the LoRA that moejax personalize learnt, merged.
"""
EPILOG = """examples:
  moejax export --workdir runs/q --to peft --output exports/loras
  moejax export --workdir runs/q --to hf --output exports/cohort_B --system moe --route cohort:B
  moejax export --workdir runs/q --to ctranslate2 --output exports/lora_A1 --system lora_A1 --quantization int8
  moejax export --speaker anna --to ctranslate2 --output exports/anna --quantization int8

Models with a 20 ms hop or masked padding (the micro family) exist in hf and peft only, where the card says so.
The licence in the card is the config's export.license.
"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "export",
        run,
        usage="moejax export --workdir W|--speaker NAME --to hf|openai|ctranslate2|peft --output D [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add = ours.add_argument
    add("--workdir", metavar="W", help="of a finished run")
    add("--speaker", metavar="NAME", help="whose LoRA moejax personalize learnt")
    add(
        "--model", metavar="MODEL", help="of --speaker: where the model lies that it was learnt for, if not by its name"
    )
    add("--to", metavar="FORMAT", help="one of the formats above")
    add("--output", metavar="D", help="a folder that is not there, is empty, or holds an earlier export")
    add("--system", metavar="NAME", help="a row of the workdir's table; default: moe or the best that there is")
    add("--route", metavar="ROUTE", help="of a mixture, see above")
    add("--dtype", metavar="TYPE", help="of the weights: float32 (default), float16, bfloat16")
    add("--quantization", metavar="KIND", help="ctranslate2 only: int8, int8_float16 ...")


def run(options, left: list[str]) -> int:
    """Writes the folders and prints them; exit code."""
    options.parser.refuse(left)
    names = (*NEEDED, "speaker", "model", "system", "route", "dtype", "quantization")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if not given:
        options.parser.print_help()
        return 2
    if "speaker" in given:
        print(_speaker(given))
        return 0
    if "model" in given:
        raise BadValue("--model belongs to --speaker; a workdir knows its model")
    if missing := [name for name in NEEDED if name not in given]:
        raise BadValue(f"--{missing[0]} is missing; moejax export --help says what it wants")
    from moejax.export import write  # here: help and refusals do not wait for JAX

    for folder in write.run(**given):
        print(folder)
    return 0


def _speaker(given):
    if other := [name for name in given if name not in MERGED]:
        raise BadValue(f"--{other[0]} does not go with --speaker; it goes with --workdir")
    if missing := [name for name in ("to", "output") if name not in given]:
        raise BadValue(f"--{missing[0]} is missing; moejax export --help says what it wants")
    from moejax.enrolment import profiles
    from moejax.export import merged

    profile = profiles.load(given.pop("speaker"))
    if profile.personal is None or profile.adapter is None:
        said = (
            "is read best without a LoRA" if profile.personal else "has phrases alone; moejax personalize learns a LoRA"
        )
        raise BadValue(f"speaker {profile.name!r} {said}: there is nothing to merge")
    place = profile.personal.get("place", "")
    model = given.pop("model", place if Path(place).exists() and place else profile.personal["model"])
    return merged.run(model, profile.adapter, **given)
