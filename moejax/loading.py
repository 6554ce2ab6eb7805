"""From a path or a name to a `Recognizer`: published models in every layout, checkpoints, workdirs."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from moejax.audio.constants import SAMPLE_RATE, WINDOW_SECONDS
from moejax.convert import find, openai_whisper, peft_lora, whisper_folder
from moejax.decode.alignment_heads import PUBLISHED
from moejax.errors import BadValue, NotThere, Remark, UnknownName
from moejax.nn.quantize import quantize
from moejax.recognizer import Recognizer, has_times
from moejax.runtime import allocator, compilation
from moejax.systems.system import Network, System
from moejax.tasks import asr
from moejax.text.tokenizer import Tokenizer


def load(
    path: str | Path,
    system: str | None = None,
    weights: str = "",
    vocabulary: str | Path | None = None,
    adapters: str | Path | Sequence[str | Path] = (),
    route: Sequence[float] | None = None,
    task: str = "transcribe",
) -> "Recognizer":
    """Recognizer from a moejax workdir, a Whisper folder of Hugging Face or faster-whisper, an OpenAI checkpoint (.pt),
    or the name of a published model.

    Args:
      path: a name such as "tiny.en" or "openai/whisper-tiny" is looked for in the Hugging Face cache, then in installed
        packages, then on the hub, from which it is downloaded (`convert.find`; `moejax models` lists names).
      system: a system of a workdir's table (`base`, `lora`, `moe`, ...); the default is the best trained one there is:
        `moe`, then `moe_frozen`, then `base`.
      task: what it is wanted for; "translate": the default is a system that learnt to, if there is one (`moe_st`).
      weights: how the backbone is kept: float32, bfloat16 or int8 (`nn.quantize`); "" as the run did, or float32.
      vocabulary: of an OpenAI checkpoint, which has none in it: a tiktoken file, or a folder with one or with
        tokenizer.json; None looks beside it and in an installed openai-whisper.
      adapters: PEFT folders with LoRAs of a published model, which are merged into its weights.
      route: their weights, such as (0.5, 0.5); one adapter alone has weight 1.

    Errors: FileNotFoundError naming what was looked for; KeyError for an unknown system; ValueError for a broken file.
    """
    allocator.keep_pages()  # before JAX starts its threads, so that they share what one of them has freed
    compilation.keep_programs()
    place = Path(path).expanduser()
    if (place / "base" / "model.json").is_file() and (place / "config.json").is_file():
        if adapters:
            known = f"such as the one that {path}/base/model.json names"
            raise BadValue(f"{path} is a workdir; adapters are added to a published model or its like, {known}")
        return _from_workdir(place, system, weights, task)
    place = find.model(path)
    if place.is_dir() and not (place / "config.json").is_file():
        raise NotThere(f"{path} is {find.NEITHER}")
    if system not in (None, "base"):
        raise UnknownName(f"a published model has no system {system!r}; it has base")
    if place.is_file():
        config, params = openai_whisper.load(place)
        tokenizer = openai_whisper.vocabulary(place, config, vocabulary).open()
        _remark_on_bases(adapters, path, place)
        params = _adapted(params, config, adapters, route)
        return _published(config, params, tokenizer, weights, heads=PUBLISHED.get(place.stem))
    config, params = whisper_folder.load(place)
    _remark_on_bases(adapters, path, place)
    params = _adapted(params, config, adapters, route)
    writes_times = whisper_folder.settings(place).get("timestamps", True)
    heads, tokenizer = _heads(place, config), Tokenizer.from_hf_folder(place)
    return _published(config, params, tokenizer, weights, heads=heads, writes_times=writes_times)


def _remark_on_bases(adapters, *model):
    """A remark for each adapter that names another published model than this one, by name or by its folder's."""
    known = {name for name in map(find.published_name, map(str, model)) if name}
    for folder in [adapters] if isinstance(adapters, str | Path) else adapters:
        base = peft_lora.base_of(folder)
        if known and find.published_name(base) not in {None, *known}:
            message = f"{folder} was made for {base}, and the model is {sorted(known)[0]}: its text may be nonsense"
            warnings.warn(message, Remark, stacklevel=3)


def _heads(place, config):
    """The heads that a folder names for word times; None, with a remark, where the model has no such heads."""
    heads = whisper_folder.alignment_heads(place)
    for head in heads or ():
        fits = isinstance(head, list | tuple) and len(head) == 2 and all(isinstance(at, int) for at in head)
        if not fits or not (0 <= head[0] < config.decoder_layers and 0 <= head[1] < config.decoder_heads):
            has = f"{config.decoder_layers} layers of {config.decoder_heads} heads"
            file = "config.json" if whisper_folder.is_ctranslate2(place) else "generation_config.json"
            message = f"{place / file}: alignment head {head!r}, and the decoder has {has}; the upper half's are used"
            warnings.warn(message, Remark, stacklevel=3)
            return None
    return heads


def _adapted(params, config, adapters, route):
    """The weights with the adapters of `load` merged into them."""
    if not adapters:
        if route is not None:
            raise BadValue("a route is the weights of adapters, and there are none")
        return params
    folders = [adapters] if isinstance(adapters, str | Path) else list(adapters)
    return peft_lora.merged(params, config, folders, route)


def _published(config, params, tokenizer, weights, *, heads=None, writes_times=True) -> "Recognizer":
    graphdef, params = asr.init(asr.build(config), quantize(params, weights))
    longest = min(WINDOW_SECONDS, config.max_source_positions * 2 * config.hop / SAMPLE_RATE)
    shorter = [s for s in (2.0, 4.0, 8.0, 16.0) if s < longest] if config.mask_padding else []
    timed = writes_times and has_times(config, tokenizer) and longest == WINDOW_SECONDS and not config.mask_padding
    return Recognizer(
        System("base", "base", "base").opened(Network(graphdef, params, config), 0),
        tokenizer,
        seconds=(*shorter, longest),
        language=None if timed else "en",
        timestamps=timed,
        can_time=writes_times and has_times(config, tokenizer) and not config.mask_padding,
        heads=heads,
    )


def _from_workdir(path: Path, system: str | None, weights: str, task: str) -> "Recognizer":
    # Imported here: the stages lie above this module and only a workdir needs them.
    from moejax.job.opening import open_workdir

    return Recognizer(**open_workdir(path, system, weights, task))
