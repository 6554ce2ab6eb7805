"""The options of `moejax transcribe`: parsed and checked before anything heavy is imported."""

import argparse
import dataclasses
import math
from collections.abc import Callable

from moejax.commands import parser, translate_options
from moejax.decode.options import LADDER
from moejax.errors import BadValue
from moejax.text.writers import FORMATS, Layout

DESCRIPTION = """examples:
  moejax transcribe talk.mp3 --model large-v3                              text on standard output
  moejax transcribe talk.mp3 --model M --language en --format srt > talk.srt
  moejax transcribe recordings/ --model M --output_dir out --format all    each file of a folder, all formats
  moejax transcribe 'day*/*.m4a' --model M --output_dir out --word_timestamps --beam_size 5
  moejax transcribe talk.wav --model M --task translate                    any language into English text
  moejax transcribe talk.wav --model runs/q --system moe --translate_to de English text, then German by a translator
  arecord -f S16_LE -r 16000 -d 5 -t raw | moejax transcribe - --rate 16000 --model M

MODEL is the name of a published Whisper (tiny.en, large-v3, ...; `moejax models` lists them) or an id of the Hugging
Face hub, downloaded once; a folder of Hugging Face or faster-whisper; an OpenAI checkpoint (.pt); or a workdir of
moejax. Options not given have the defaults of openai-whisper's `transcribe` function (greedy search, and the
temperature ladder where a window fails). Models of moejax that were trained on short windows decode greedily, once.
"""
EPILOG = """one bad file does not stop the rest: it is named at the end with its reason, and the exit code is 1.
What can be heard of a damaged file (half a download, a header that lies) is written, with a warning and exit code 0.
exit codes: 0 all done, 1 refused or some files failed (stderr says which and why), 130 interrupted.
"""
# Options of other command lines (openai-whisper, faster-whisper) that there are not here, and what does the same.
HINTS = {
    "--model_dir": "the environment variable HF_HUB_CACHE says where models are kept",
    "--model_directory": "--model takes the folder",
    "--compute_type": "--weights int8 or bfloat16 says how weights are kept",
    "--vad_filter": "windows without sound are withheld by themselves (--guards)",
    "--batched": "--chunked reads long pieces side by side",
    "--vad": "windows without sound are withheld by themselves (--guards)",
    "--prompt": "--initial_prompt is said before the recording",
    "--print_colors": "--word_timestamps --format json has the words' probabilities",
}
_SHORTEST_STEP = 0.01  # of the ladder: a hundred rungs
_COMMON = ("command", "run", "parser", "traceback", "files")  # of every command; `files` stand between options too


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command line asks for; `options` are those of `Recognizer.transcribe` that were given."""

    files: list[str]
    model: str
    system: str | None
    weights: str
    adapters: tuple[str, ...]
    route: tuple[float, ...] | None
    enroll: tuple[str, ...]
    speaker: str | None
    formats: tuple[str, ...]
    output_dir: str | None
    rate: int | None
    layout: Layout
    diarize: str | None
    profiles: str | None
    translate_to: str | None
    translator: str | None
    dry_run: bool
    deepl: dict  # options of `mt.deepl_options.Options` that were given
    device: str | None
    threads: int | None
    options: dict


def asked(options: argparse.Namespace, left: list[str]) -> Asked:
    """What a parsed command line asks for; files may stand between options. Errors: BadValue in one line."""
    files = [*options.files, *(argument for argument in left if argument == "-" or not argument.startswith("-"))]
    left = [argument for argument in left if argument not in files]
    hint = HINTS.get(left[0].partition("=")[0]) if left else None
    if hint is not None:
        raise BadValue(f"transcribe has no option {left[0].partition('=')[0]!r}; {hint}")
    options.parser.refuse(left)
    values = {name: value for name, value in vars(options).items() if name not in _COMMON}
    model = values.pop("model")
    if not files or model is None:
        raise BadValue("usage: moejax transcribe FILE|FOLDER|PATTERN|- ... --model MODEL (--help shows examples)")
    _check_half(values.pop("fp16"))
    values.pop("verbose")
    kept = ("system", "speaker", "weights", "route", "output_dir", "rate", "device", "threads", "diarize", "profiles")
    taken = {name: values.pop(name) for name in (*kept, "translate_to", "dry_run")}
    translator, layout = values.pop("translator"), {f.name: values.pop(f.name) for f in dataclasses.fields(Layout)}
    name = values.pop("format")
    found = Asked(
        files=files,
        model=model,
        formats=tuple(FORMATS) if name == "all" else (name,),
        layout=Layout(**layout),
        adapters=tuple(values.pop("adapter")),
        enroll=tuple(values.pop("enroll")),
        translator=translator,
        deepl=translate_options.taken(values),
        options=_options(values),
        **taken,
    )
    _check(found, name)
    return found


def _options(values: dict) -> dict:
    """Options of `Recognizer.transcribe`: the ladder is made of two options, hotwords are split."""
    step = values.pop("temperature_increment_on_fallback", "unset")
    if "temperature" in values or step != "unset":
        values["temperature"] = _ladder(values.get("temperature", (0.0,)), 0.2 if step == "unset" else step)
    if "hotwords" in values:
        values["hotwords"] = tuple(word.strip() for word in values["hotwords"].split(",") if word.strip())
    return values


def _ladder(given: tuple[float, ...], step: float | None) -> tuple[float, ...]:
    """Several temperatures are a ladder already; one climbs to 1 by `step`, None for no fallback."""
    first, *more = given
    if more or step is None:
        return given
    if step < _SHORTEST_STEP:
        rule = f"give a step of {_SHORTEST_STEP} or more, or None for no fallback"
        raise BadValue(f"--temperature_increment_on_fallback is {step:g}; {rule}")
    rungs = tuple(round(first + i * step, 6) for i in range(int((1.0 - first) / step + 1e-6) + 1))
    return rungs or given


def _check_half(asked: bool):
    if asked:
        raise BadValue("--fp16 True: half precision is --weights bfloat16 here; without it float32 is used")


def _check(asked: Asked, format: str):
    """Combinations that cannot be meant."""
    if asked.profiles is not None and asked.diarize is None:
        raise BadValue("--profiles names the voices that --diarize WORKDIR tells apart: give that, too")
    if asked.diarize is not None:
        if asked.options.setdefault("word_timestamps", True) is not True:
            raise BadValue("--diarize gives words to speakers by their times: leave --word_timestamps False out")
        if asked.translate_to is not None:
            raise BadValue("--diarize says who said which words; --translate_to writes others: ask for one of them")
    layout, words = asked.layout, asked.options.get("word_timestamps")
    arranged = [field.name for field in dataclasses.fields(Layout) if getattr(layout, field.name)]
    if arranged and not words:
        raise BadValue(f"--{arranged[0]} needs --word_timestamps")
    if layout.max_line_count and not layout.max_line_width:
        raise BadValue("--max_line_count has no effect without --max_line_width")
    if layout.max_words_per_line and layout.max_line_width:
        raise BadValue("--max_words_per_line has no effect with --max_line_width")
    if asked.rate is not None and "-" not in asked.files:
        raise BadValue("--rate is the sampling rate of raw samples on standard input, written -")
    if format == "all" and asked.output_dir is None:
        raise BadValue("--format all writes several files: give --output_dir FOLDER")
    translate_options.check(asked)


def _plain(parser, argv):
    """Dashes in option names become underscores, and a flag takes its True or False from the next word, if it is one:
    both spellings of openai-whisper's users work, and `--word_timestamps talk.wav` does not swallow the file.
    """
    flags = {name for name, action in parser._option_string_actions.items() if action.type is _boolean}
    plain, rest = [], list(argv)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("--") and len(argument) > 2:
            name, equals, value = argument.partition("=")
            argument = "--" + name[2:].replace("-", "_") + equals + value
            if argument in flags:
                argument += "=" + (rest.pop(0) if rest and rest[0] in ("True", "False") else "True")
        plain.append(argument)
    return plain


def add(commands, run: Callable) -> None:
    ours = parser.add(
        commands,
        "transcribe",
        run,
        usage="moejax transcribe FILE|FOLDER|PATTERN|- ... --model MODEL [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
        argument_default=argparse.SUPPRESS,  # what was not asked for does not reach the model
        spelled=_plain,
    )
    _files(ours)
    translate_options.add(ours)
    _search(ours)
    _long(ours)
    _words(ours)


def _files(parser):
    add = parser.add_argument_group("input and output").add_argument
    add("files", nargs="*", default=[], metavar="FILE", help="audio files, folders, 'patterns', - for standard input")
    add("--model", default=None, metavar="MODEL", help="workdir, Hugging Face folder or cached id, OpenAI .pt")
    add("--system", default=None, help="system of a workdir: base, lora, moe ... (default: the best trained one)")
    add("--weights", default="", choices=("float32", "bfloat16", "int8"), help="how the base's weights are kept")
    add(
        "--adapter",
        action="append",
        default=[],
        metavar="DIR",
        help="a PEFT folder with a LoRA of the model, merged into its weights; several with --route",
    )
    add("--route", default=None, type=_weights, metavar="W,W", help="weights of the adapters; one alone has 1")
    add(
        "--enroll",
        action="append",
        default=[],
        metavar="FILE",
        help="a few recordings (file, folder or pattern; may be repeated) of the one who speaks in all FILEs. With "
        "their texts (metadata.csv or .txt beside them) they stand in front of what any model hears; without texts a "
        "mixture or hypernetwork adapts to the voice",
    )
    add("--speaker", default=None, metavar="NAME", help="one whom moejax enroll knows speaks in all FILEs")
    add("--format", "--output_format", "-f", default="txt", choices=(*FORMATS, "all"), help="default txt")
    add(
        "--output_dir",
        "-o",
        default=None,
        metavar="DIR",
        help="write files there; without it one file's result goes "
        "to standard output, and the texts of several as FILE<tab>TEXT",
    )
    add("--rate", default=None, type=_count, metavar="HZ", help="standard input is raw 16-bit mono at this rate")
    add("--batch_size", type=_count, metavar="N", help="windows decoded at once")
    add(
        "--device",
        default=None,
        type=_device,
        metavar="NAME",
        help="cpu keeps off an accelerator that there is; cuda or gpu demands one; default: one where there is one",
    )
    add("--threads", default=None, type=_threads, metavar="N", help="processor cores to use; default all")
    add("--verbose", default=True, type=_maybe(_boolean), metavar="BOOL", help=argparse.SUPPRESS)
    add("--fp16", default=False, type=_boolean, metavar="BOOL", help=argparse.SUPPRESS)
    add = parser.add_argument_group("language").add_argument
    add("--language", metavar="NAME", help="en, de, German ...; default: detected (English for workdirs trained on it)")
    add(
        "--task",
        choices=("transcribe", "translate"),
        help="translate: the model itself writes English, or what a workdir taught it (config section st)",
    )
    add("--target", metavar="NAME", help="language that --task translate writes; default: the one that was taught")
    add(
        "--emotion", type=_boolean, metavar="BOOL", help="of a system that learnt emotions (json has them); False: none"
    )


def _search(parser):
    add = parser.add_argument_group("search").add_argument
    add("--beam_size", type=_maybe(_count), metavar="N", help="beam search at temperature 0; default greedy")
    add("--patience", type=_maybe(_number), metavar="P", help="beam ends after P x N finished hypotheses")
    add("--length_penalty", type=_maybe(_number), metavar="A", help="between 0 and 1; default: mean log-probability")
    add("--temperature", type=_numbers, metavar="T[,T...]", help=f"default {','.join(f'{t:g}' for t in LADDER)}")
    add(
        "--temperature_increment_on_fallback",
        type=_maybe(_number),
        metavar="T",
        help="step of the ladder from a single --temperature to 1, default 0.2; None for no fallback",
    )
    add("--best_of", type=_maybe(_count), metavar="N", help="samples at temperatures above 0")
    add(
        "--guards",
        choices=("all", "reference", "none"),
        help="what is withheld as invented: by loudness, length and "
        "repetition too (all, default), by the no-speech rule only (reference), nothing",
    )
    add("--suppress_tokens", metavar="IDS", help="never chosen; -1 (default) stands for annotations and symbols")
    add("--prefix", metavar="TEXT", help="what the recording begins with, whatever is heard")
    add("--hotwords", metavar="A,B", help="phrases made likelier, with commas between")
    add("--hotword_bias", type=_number, metavar="X", help="how much likelier, added to logits; default 2")
    add("--compression_ratio_threshold", type=_maybe(_number), metavar="X", help="too repetitive above; default 2.4")
    add("--logprob_threshold", type=_maybe(_number), metavar="X", help="too unlikely below; default -1")
    add("--no_speech_threshold", type=_maybe(_number), metavar="X", help="silence above, if unlikely; default 0.6")


def _long(parser):
    group = parser.add_argument_group("long recordings")
    either = group.add_mutually_exclusive_group()
    either.add_argument(
        "--sequential",
        action="store_const",
        const="sequential",
        dest="algorithm",
        help="window after window, each with the text before it, as the reference does (default)",
    )
    either.add_argument(
        "--chunked",
        action="store_const",
        const="chunked",
        dest="algorithm",
        help="cut at silences into long pieces, read side by side: faster, but no window knows the text before it",
    )
    add = group.add_argument
    add("--initial_prompt", metavar="TEXT", help="said before the recording: names, spelling, style")
    add("--carry_initial_prompt", type=_boolean, metavar="BOOL", help="before every window, not only the first")
    add("--condition_on_previous_text", type=_boolean, metavar="BOOL", help="default True; False repeats itself less")
    add("--clip_timestamps", metavar="S,S", help="hear only from second to second: start,end,start,end ... in order")
    add(
        "--hallucination_silence_threshold",
        type=_maybe(_number),
        metavar="S",
        help="with word times: skip longer silences around text that looks invented",
    )


def _words(parser):
    add = parser.add_argument_group("word times and subtitles").add_argument
    add("--word_timestamps", type=_boolean, metavar="BOOL", help="times of words, in json, srt and vtt")
    add("--prepend_punctuations", metavar="MARKS", help="marks that join the word after them")
    add("--append_punctuations", metavar="MARKS", help="marks that join the word before them")
    add(
        "--diarize",
        default=None,
        metavar="WORKDIR",
        help="say who said each word, by the diarizer of this workdir (moejax diarizer); turns word times on",
    )
    add(
        "--profiles", default=None, metavar="NAMES", help="with --diarize: enrolled voices to name, with commas, or all"
    )
    add("--highlight_words", type=_boolean, default=False, metavar="BOOL", help="underline each word while it is said")
    add("--max_line_width", type=_maybe(_count), default=None, metavar="N", help="characters in a line of a subtitle")
    add("--max_line_count", type=_maybe(_count), default=None, metavar="N", help="lines in a subtitle")
    add("--max_words_per_line", type=_maybe(_count), default=None, metavar="N", help="words in a subtitle")


def _boolean(text):
    if text not in ("True", "False"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text == "True"


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _number(text):
    try:
        found = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return found


def _threads(text):
    return None if text in ("0", "None") else _count(text)


def _device(text):
    kind = text.lower().partition(":")[0]
    if kind not in ("cpu", "cuda", "gpu", "auto"):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; known: cpu, cuda, gpu, auto")
    return {"cuda": "gpu", "auto": None}.get(kind, kind)


def _weights(text):
    try:
        return tuple(_number(part) for part in text.split(","))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, nor numbers with commas") from error


def _numbers(text):
    found = _weights(text)
    if min(found) < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: temperatures are not negative")
    return found


def _maybe(kind):
    """`kind`, or None for the word None, as openai-whisper's users write it."""

    def parsed(text):
        return None if text in ("None", "none") else kind(text)

    parsed.__name__ = getattr(kind, "__name__", "value").strip("_")
    return parsed
