"""`moejax serve`: a local server with the routes of OpenAI's audio API."""

import argparse
import os
import sys
from pathlib import Path

from moejax.commands import parser
from moejax.errors import BadValue, NotInstalled, NotThere

VARIABLE = "MOEJAX_SERVE_KEYS"
EXTRA = ("fastapi", "starlette", "uvicorn", "python_multipart", "anyio")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
DESCRIPTION = f"""Serves models over HTTP, with the routes of OpenAI's audio API, so that clients written for it need
another address only. Recordings of several clients are read together. Nothing leaves this machine, and nothing of a
request is kept.

Models are loaded at the start; a request's `model` is the name of one, whisper-1 the first. Beside OpenAI's fields a
request takes speaker (of moejax enroll), system (of a workdir), route (logits in place of a mixture's gate), target.

Keys: one a line in the file of --keys, or in ${VARIABLE} with commas between; without any, whoever reaches
the address is served. SIGTERM or Ctrl-C: what was accepted is answered first, a second one ends at once.
"""
EPILOG = """examples:
  moejax serve --model tiny.en                                            http://127.0.0.1:8000/v1
  moejax serve --model base --model mine=runs/quickstart                  two models, the second called mine
  moejax serve --model base --host 0.0.0.0 --port 80 --keys keys.txt      for other machines, with keys
  curl http://127.0.0.1:8000/v1/audio/transcriptions -F file=@talk.mp3 -F model=tiny.en
"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "serve",
        run,
        usage="moejax serve --model MODEL [--model NAME=MODEL ...] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add_models(ours)
    add = ours.add_argument_group("address").add_argument
    add("--host", default="127.0.0.1", metavar="HOST", help="default 127.0.0.1: this machine alone")
    add("--port", type=parser.whole, default=8000, metavar="N", help="default 8000; 0 takes a free one")
    add("--keys", metavar="FILE", help=f"keys, one a line; # begins a comment (or ${VARIABLE})")
    add(
        "--allow_origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="pages from there (https://host) may call it from a browser; may be repeated, * for all; default none",
    )
    add_limits(ours)


def add_models(ours) -> None:
    """Options of what is loaded."""
    add = ours.add_argument_group("models").add_argument
    add("--model", action="append", default=[], metavar="MODEL", help="as of transcribe, or NAME=MODEL; repeated")
    add("--weights", default="", choices=("float32", "bfloat16", "int8"), help="how weights are kept")
    add(
        "--guards",
        choices=("all", "reference", "none"),
        help="which text is withheld as invented, as of transcribe; default all",
    )
    add("--device", choices=("cpu",), help="cpu keeps off an accelerator that there is")


def add_limits(ours, megabytes: float = 25.0) -> None:
    """Options of how much is taken."""
    add = ours.add_argument_group("batches and limits").add_argument
    add("--batch_size", type=_count, default=8, metavar="N", help="windows that are read together; default 8")
    add("--batch_wait_ms", type=_number, default=50.0, metavar="MS", help="wait for company; default 50")
    most = f"of an upload; default {megabytes:g}"
    add("--max_megabytes", type=_positive, default=megabytes, metavar="MB", help=most)
    add("--max_seconds", type=_positive, default=3600.0, metavar="S", help="of a recording; default 3600")
    add("--max_waiting", type=_positive, default=14400.0, metavar="S", help="audio that may queue; default 14400")


def run(options, left: list[str]) -> int:
    """`moejax serve`; exit code 0 when it was asked to stop. What can be known before models are loaded is refused
    before.
    """
    options.parser.refuse(left)
    check(options)
    keys = _keys(options.keys)
    choose_device(options)
    try:
        from moejax.serve import app, server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise NotInstalled(f"serve needs {error.name}, which is not installed: pip install 'moejax[serve]'") from error
    from moejax.serve.models import named

    wanted = named(options.model)
    with server.bound(options.host, options.port) as place:
        found = service(options, wanted)
        if options.host not in LOOPBACK and not keys:
            say(f"warning: --host {options.host} without --keys: whoever reaches it is served")
        address = f"http://{host_of(options.host)}:{place.getsockname()[1]}/v1"

        def ready():
            print(f"{address} ({', '.join(wanted)})", flush=True)

        built = app.build(found, keys=keys, origins=options.allow_origin)
        server.Server(built, found, ready).run(sockets=[place])
    return 0


def check(options) -> None:
    """Errors: no model, or a port that is none."""
    if not options.model:
        raise BadValue("--model is missing: which model is served (moejax models lists names)")
    if options.port > 65535:
        raise BadValue(f"--port {options.port}: at most 65535")


def choose_device(options) -> None:
    """Before JAX is imported."""
    if options.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"


def host_of(host: str) -> str:
    """As an address has it."""
    return f"[{host}]" if ":" in host else host


def service(options, wanted: dict[str, str], command: str = "serve", warm: int | None = None):
    """The service over these models, loaded and warm, for batches of up to `warm` (None: for all that it makes);
    `command` says the remarks.
    """
    from moejax.serve.models import Models
    from moejax.serve.service import Limits, Service

    limits = Limits(
        batch_size=options.batch_size,
        batch_wait=options.batch_wait_ms / 1000,
        megabytes=options.max_megabytes,
        seconds=options.max_seconds,
        waiting=options.max_waiting,
    )
    models = Models(wanted, weights=options.weights, say=lambda line: say(line, command))
    models.warm_up(warm or limits.batch_size)
    return Service(models, limits, **({} if options.guards is None else {"guards": options.guards}))


def _keys(path: str | None) -> list[str]:
    """The keys that clients may have. Errors: a file that is not there, or has none."""
    if path is None:
        return [key.strip() for key in os.environ.get(VARIABLE, "").split(",") if key.strip()]
    file = Path(path)
    if not file.is_file():
        raise NotThere(f"--keys {path}: there is no such file")
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise BadValue(f"--keys {path}: no key in it; one a line")
    return found


def say(line: str, command: str = "serve") -> None:
    """A remark for whoever runs it."""
    print(f"moejax {command}: {line}", file=sys.stderr)


def _count(text: str) -> int:
    found = parser.whole(text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"wants a whole number from 1 on, got {text!r}")
    return found


def _number(text: str) -> float:
    try:
        found = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"wants a number, got {text!r}") from error
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"wants a number from 0 on, got {text!r}")
    return found


def _positive(text: str) -> float:
    found = _number(text)
    if found == 0:
        raise argparse.ArgumentTypeError("wants a number above 0")
    return found
