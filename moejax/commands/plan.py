"""`moejax plan`: sizes, sharding and memory of a config, before any weights are read."""

from moejax.commands import config_file, parser
from moejax.runtime import stopping

EPILOG = """examples:
  moejax plan --config configs/quickstart.py
  moejax plan --config configs/whisper_large_v2.py --devices 8 --config.mesh.fsdp=8
"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "plan",
        run,
        usage=config_file.usage("plan", workdir=False, more="[--devices N] "),
        description="Prints sizes, trained arrays, sharding and memory of a config. Reads no weights and no corpus.",
        epilog=EPILOG,
    )
    config_file.add(ours, run=False)
    ours.add_argument("--devices", type=parser.whole, default=1, metavar="N", help="devices to plan for, default 1")


def run(options, left: list[str]) -> int:
    with stopping.leaving(options.command):
        config = config_file.read(options, left)
        from moejax.job.plan import plan

        print(plan(config, options.devices))
        return 0
