"""`moejax ask`: questions about recordings, answered by a language model that hears."""

from pathlib import Path
from typing import Any

from moejax.commands import inputs, parser
from moejax.errors import BadValue

TASKS = ("transcribe", "translate_de", "describe", "emotion")
WEIGHTS = ("float32", "bfloat16", "int8")
DESCRIPTION = """Answers a question about each recording (30 s at most) by SALMONN, as published or as a job taught it.

--model WORKDIR is a job's with the stage salmonn; its gate hears of each recording what the job's embeddings say.
--model FOLDER has in it:
  whisper/   openai/whisper-large-v2 in Hugging Face's layout
  llama/     lmsys/vicuna-7b-v1.1 or 13b in Hugging Face's layout, with tokenizer.json
  *.pt       BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt
  *.pth      salmonn_7b_v0.pth or salmonn_v1.pth, which fits the language model

--task asks a question that it was trained with, in place of one of your own.
"""
EPILOG = """examples:
  moejax ask talk.wav --model salmonn/ --question "What is the speaker worried about?"
  moejax ask recordings/ --model salmonn/ --task transcribe --weights int8
  moejax ask street.wav --model salmonn/ --question "Write a story about it." --scale 0.5
  moejax ask talk.wav --model runs/salmonn --task transcribe              the mixture that a job trained
  moejax ask talk.wav --model runs/salmonn --system salmonn_lora --task translate_de

exit codes: 0 done, 1 refused, or a recording could not be heard (one line says why)
"""


def add(commands) -> None:
    usage = "moejax ask FILE... --model PATH (--question TEXT | --task NAME) [options]"
    ours = parser.add(commands, "ask", run, usage=usage, description=DESCRIPTION, epilog=EPILOG)
    parser.takes_recordings(ours, "PATH", "a workdir, or a folder with the parts of the model, as above")
    add = ours.add_argument
    add("--system", metavar="NAME", help="of a workdir; default the last it has of salmonn, salmonn_lora, salmonn_moe")
    add("--question", metavar="TEXT", help="what is asked about each recording")
    add("--task", metavar="NAME", help="a question that the model knows: " + ", ".join(TASKS))
    add("--beams", type=parser.whole, default=4, metavar="N", help="hypotheses of the search (default 4; 1: greedy)")
    add("--most", type=parser.whole, default=200, metavar="N", help="longest answer, in tokens (default 200)")
    add("--scale", type=float, default=1.0, metavar="X", help="of the LoRA; below 1 it answers more freely (default 1)")
    add(
        "--weights",
        metavar="KIND",
        help="how frozen weights are kept: float32 (default; or as the job), bfloat16, int8",
    )
    add("--batch_size", type=parser.whole, default=8, metavar="N", help="recordings at the same time (default 8)")


def run(options, left: list[str]) -> int:
    """Prints `name: answer` for each recording, the answer alone where there is one recording; exit code."""
    if not parser.told(options, left, "a workdir, or a folder with whisper/, llama/, *.pt and *.pth in it"):
        return 2
    if (options.question is None) == (options.task is None):
        raise BadValue("ask one question: --question TEXT, or --task with one of " + ", ".join(TASKS))
    if options.task is not None and options.task not in TASKS:
        raise BadValue(f"--task: unknown task {options.task!r}; known: {', '.join(TASKS)}")
    if options.weights is not None and options.weights not in WEIGHTS:
        raise BadValue(f"--weights: unknown format {options.weights!r}; known: {', '.join(WEIGHTS)}")
    for name in ("beams", "most", "batch_size"):
        if getattr(options, name) < 1:
            raise BadValue(f"--{name} must be at least 1, got {getattr(options, name)}")
    # here: help does not wait for JAX
    from moejax.commands.progress import Progress
    from moejax.tasks import audio_llm

    question = options.question if options.task is None else audio_llm.QUESTIONS[options.task]
    sources, missing = inputs.find(options.files)
    for argument, reason in missing.items():
        print(f"{argument}: {reason}")
    sources, failed = [source for source in sources if source.path], bool(missing)
    asked = _opened(options)
    with Progress(sources) as shown:
        for at in range(0, len(sources), options.batch_size):
            heard = [(source, *_read(source, asked.samples)) for source in sources[at : at + options.batch_size]]
            for source, _, error in heard:
                if error:
                    shown.print(f"{source.name}: {error}\n")
            failed |= any(error for _, _, error in heard)
            there = [(source, wave_S) for source, wave_S, error in heard if not error]
            if waves := [wave_S for _, wave_S in there]:
                said = asked.answerer(
                    waves,
                    [question] * len(there),
                    beams=options.beams,
                    most=options.most,
                    route=asked.routes(waves),
                    scale=options.scale,
                )
                for (source, _), answer in zip(there, said, strict=True):
                    shown.print(f"{answer}\n" if len(sources) == 1 else f"{source.name}: {answer}\n")
            for number in range(at, at + len(heard)):
                shown.done(number)
    return int(failed)


def _opened(options) -> Any:
    """The model (`systems.answering.Asked`), of a workdir or of published files."""
    place = Path(options.model).expanduser()
    if (place / "base" / "model.json").is_file() and (place / "config.json").is_file():
        from moejax.job.opening import open_answerer

        return open_answerer(place, options.system, options.weights or "")
    if options.system is not None:
        raise BadValue(f"--system {options.system} is of a workdir, and {options.model} is none: leave it out")
    from moejax.systems.answering import Asked
    from moejax.tasks import answers

    weights = options.weights or "float32"
    answerer = answers.opened(place, weights=weights, dtype=dtype_of(weights))
    return Asked(answerer, lambda waves: answers.one_lora(len(waves)), answerer.samples)


def dtype_of(weights: str) -> str:
    """What the language model calculates in: half precision where its weights are no more."""
    import jax

    return "bfloat16" if weights != "float32" and jax.default_backend() != "cpu" else "float32"


def _read(source, most) -> tuple[Any, str]:
    """(samples at 16 kHz, what is wrong)"""
    from moejax.audio import read
    from moejax.audio.constants import SAMPLE_RATE
    from moejax.audio.flaws import Rejected

    try:
        checked = read.load(source.path, whole=False, min_seconds=0.0, max_seconds=most / SAMPLE_RATE)
    except Rejected as rejected:
        return None, f"{rejected.reason}: {rejected.what}"
    for flaw in checked.flaws:
        print(f"{source.name}: {flaw}")
    return checked.samples[:most], ""
