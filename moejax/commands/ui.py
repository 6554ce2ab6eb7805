"""`moejax ui`: a page in the browser over the same service as `moejax serve`."""

import sys
import tempfile
import webbrowser
from pathlib import Path

from moejax.commands import parser, serve
from moejax.errors import BadValue, NotInstalled, NotThere

EXTRA = (*serve.EXTRA, "gradio")
DESCRIPTION = """A page in the browser: record or choose a recording, read its text with every word coloured by how sure
the model is, click a word to hear it, keep txt, srt, vtt or json. Models, systems of a workdir and voices are chosen on
the page; two of them are compared, and a voice is enrolled. Of a mixture the gate's weights are shown, of a workdir its
report. With --diarize a transcript shows who speaks when, with --pronounce a tab judges how a sentence is pronounced.

Nothing leaves this machine, and it works without a network. The page is for this machine alone unless --host says
otherwise. Browsers give a microphone to pages of this machine, or of https: for a telephone give --host 0.0.0.0 with
--ssl_certfile and --ssl_keyfile. Of the models the first is chosen when the page opens.
"""
EPILOG = """examples:
  moejax ui --model tiny.en                                    http://127.0.0.1:7860
  moejax ui --model base --model mine=runs/quickstart --open   two models, the second called mine; opens the browser
  moejax ui --model base --pronounce runs/pronounce --sentences phrases/             learners of a language
  moejax ui --model base --host 0.0.0.0 --ssl_certfile cert.pem --ssl_keyfile key.pem      for telephones in the house
"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "ui",
        run,
        usage="moejax ui --model MODEL [--model NAME=MODEL ...] [--port N] [--open] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    serve.add_models(ours)
    add = ours.add_argument_group("tabs").add_argument
    judges = "a workdir that moejax pronounce takes, or NAME=WORKDIR; repeated"
    add("--diarize", metavar="WORKDIR", help="say who speaks when in a transcript, by the diarizer of this workdir")
    add("--pronounce", action="append", default=[], metavar="WORKDIR", help=judges)
    add("--sentences", metavar="FOLDER", help="of --pronounce: recordings with their texts, to be said like these")
    add = ours.add_argument_group("address").add_argument
    add("--host", default="127.0.0.1", metavar="HOST", help="default 127.0.0.1: this machine alone")
    add("--port", type=parser.whole, default=7860, metavar="N", help="default 7860; 0 takes a free one")
    add("--open", action="store_true", help="open the page in the browser")
    add("--ssl_certfile", metavar="FILE", help="certificate, for https")
    add("--ssl_keyfile", metavar="FILE", help="its key")
    serve.add_limits(ours, megabytes=200.0)  # an hour of 16-bit WAV at 16 kHz is 115


def run(options, left: list[str]) -> int:
    """`moejax ui`; exit code 0 when it was asked to stop."""
    options.parser.refuse(left)
    serve.check(options)
    if options.sentences and not options.pronounce:
        raise BadValue("--sentences are for the tab of pronunciation: give --pronounce WORKDIR too")
    secure = _secure(options)
    serve.choose_device(options)
    try:
        from moejax.serve import server
        from moejax.ui import layout
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise NotInstalled(f"ui needs {error.name}, which is not installed: pip install 'moejax[ui]'") from error
    from moejax.diarize import listening
    from moejax.pronounce import judging
    from moejax.serve.models import named
    from moejax.ui import trainer
    from moejax.ui.desk import Desk
    from moejax.ui.sounds import Sounds

    wanted, judges = named(options.model), named(options.pronounce, "--pronounce")
    offered = trainer.sentences(options.sentences) if options.sentences else ()
    with server.bound(options.host, options.port) as place, tempfile.TemporaryDirectory(prefix="moejax-ui-") as folder:
        if sys.stderr.isatty():  # for a person, who would wonder
            serve.say(f"loading {', '.join(wanted)}; the first start of a model on a machine compiles it", "ui")
        diarizer = listening.opened(options.diarize) if options.diarize else None
        opened = {name: judging.opened(place) for name, place in judges.items()}
        service = serve.service(options, wanted, "ui", warm=1)  # few people share a page: two at once compile later
        private = options.host in serve.LOOPBACK
        if not private:
            serve.say(f"warning: whoever reaches --host {options.host} is served, and may enroll voices", "ui")
        kind = "https" if secure else "http"
        address = f"{kind}://{serve.host_of(options.host)}:{place.getsockname()[1]}"

        def ready():
            print(f"{address} ({', '.join(wanted)})", flush=True)
            if options.open:
                webbrowser.open(address)

        sounds = Path(folder) / "sounds"
        sounds.mkdir()
        desk = Desk(service, Sounds(sounds), private=private, diarizer=diarizer)
        train = trainer.Trainer(desk, opened, offered) if opened else None
        page = layout.build(desk, Path(folder) / "uploads", train)
        # a page that is open holds a connection for ever: it is not waited for
        settings = {"lifespan": "on", "timeout_graceful_shutdown": 2, **secure}
        server.Server(page, service, ready, **settings).run(sockets=[place])
    return 0


def _secure(options) -> dict[str, str]:
    """What uvicorn needs for https. Errors: one without the other, or a file that is not there."""
    given = {name: getattr(options, name) for name in ("ssl_certfile", "ssl_keyfile")}
    given = {name: path for name, path in given.items() if path}
    if len(given) == 1:
        raise BadValue(f"--{next(iter(given))} needs the other: --ssl_certfile FILE --ssl_keyfile FILE")
    for name, path in given.items():
        if not Path(path).is_file():
            raise NotThere(f"--{name} {path}: there is no such file")
    return given
