"""`moejax plan`: sizes, sharding and memory of a config, before any weights are read."""

from moejax.commands import config_file, parser
from moejax.errors import BadValue
from moejax.runtime import stopping

EPILOG = """examples:
  moejax plan --config configs/quickstart.py
  moejax plan --config configs/whisper_large_v2.py --devices 8 --config.mesh.fsdp=8
  moejax plan --config configs/salmonn_7b.py --devices 4          with its salmonn.systems' language model
  moejax plan --audio_llm 13b --devices 4 --weights int8          SALMONN, which no config is needed for
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
    add = ours.add_argument
    add("--devices", type=parser.whole, default=1, metavar="N", help="devices to plan for, default 1")
    add("--audio_llm", metavar="SIZE", help="plan SALMONN with a language model of this size, 7b or 13b; no config")
    add("--weights", metavar="KIND", default="bfloat16", help="of --audio_llm: float32, bfloat16 (default), int8")
    add("--experts", type=parser.whole, default=1, metavar="N", help="of --audio_llm: LoRAs in its mixture, default 1")
    add("--axis", metavar="NAME", default="fsdp", help="of --audio_llm: mesh axis of all devices, fsdp or model")


def run(options, left: list[str]) -> int:
    with stopping.leaving(options.command):
        if options.audio_llm is not None:
            options.parser.refuse(left)
            if options.config is not None:
                raise BadValue("--audio_llm plans by itself: leave --config out")
            from moejax.job import audio_plan

            asked = audio_plan.Asked(options.audio_llm, options.weights, options.experts, options.axis)
            print(audio_plan.plan(asked, options.devices))
            return 0
        config = config_file.read(options, left)
        from moejax.job.plan import plan

        print(plan(config, options.devices))
        if config.salmonn.systems:
            from moejax.job import audio_plan

            print("\n" + audio_plan.of_config(config, options.devices))
        return 0
