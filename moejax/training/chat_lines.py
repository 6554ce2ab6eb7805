"""Lines on which a small LLaMA learns what a published one brings along: to repeat a text and to translate it.

    moejax describe --config configs/salmonn_toy.py --workdir W
    python -m moejax.training.chat_lines W lines.txt
    python -m moejax.training.small_llama lines.txt salmonn/llama --after ASSISTANT:

The pairs of text and translation are those of W's training part, and for the embedded corpus other sentences of its
grammar; no sentence of dev or test is among them. A line is a prompt of `tasks.audio_llm` with the text in the place of
the recording, as windows would hear it (`drawn_out`), and its answer: what is said in the language model's own words
where vectors of a connector will stand.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moejax.data.manifest import Manifest
from moejax.errors import BadValue, Refused
from moejax.runtime.files import read_json, write_text
from moejax.speech import grammar
from moejax.tasks import audio_llm
from moejax.text import normalize
from moejax.training import salmonn

Pair = tuple[str, str]  # text, translation
SILENCE = "pause"
PLACES = 150  # vectors that the connector `stacked` makes of 30 s, 0.2 s each
PLACES_A_LETTER = (0.25, 0.5)  # 0.05 to 0.1 s, as the embedded corpus' speakers


def pairs_of(workdir: Path | str, extra: int) -> tuple[list[Pair], str]:
    """(pairs of the training part, each text once, and `extra` of the grammar; the language of the translations).

    Errors: NotThere before `moejax describe`; BadValue where nothing is translated, or another corpus has no grammar.
    """
    workdir = Path(workdir)
    manifest = Manifest.load(workdir / "describe" / "manifest.parquet", root=workdir)
    config = read_json(workdir / "config.json")["config"]
    if extra < 0:
        raise BadValue(f"extra is {extra}; it takes 0 or more sentences")
    if extra and config["data"]["source"] != "builtin":
        raise BadValue(f"{workdir}: only the embedded corpus has a grammar of other sentences; take extra = 0")
    texts, translations = manifest.column("text"), manifest.column("translation")
    train = [row for row in manifest.indices(split="train") if str(translations[row]).strip()]
    found = {str(texts[row]): str(translations[row]) for row in train}
    if not found:
        raise BadValue(f"{workdir}: no training utterance has a translation")
    if extra:
        found |= dict(grammar.sample(extra, config["seed"] + 2, exclude={str(text) for text in texts}))
    held = {normalize.lower(str(texts[row])) for row in manifest.indices(split=["dev", "test"])}
    pairs = [pair for pair in found.items() if normalize.lower(pair[0]) not in held]
    return pairs, config["translate"]["target"]


def lines_of(pairs: Sequence[Pair], target: str, places: int = PLACES, seed: int = 0) -> list[str]:
    """Two lines of each pair, one asked for the text and one for the translation; `places` 0: the text as it is."""
    rng, found = np.random.default_rng(seed), []
    for text, translation in pairs:
        for task, answer in (("transcribe", text), ("translate", translation)):
            said = drawn_out(text, places, rng) if places else text
            asked = audio_llm.prompt(salmonn.question(task, target)).replace(audio_llm.PLACE, f" {said} ")
            found.append(f"{asked} {answer}")
    return found


def drawn_out(text: str, places: int, rng: np.random.Generator) -> str:
    """The text as so many windows of a recording hear it: each word as often as its letters last, at a speed that is
    drawn, and `SILENCE` before and behind. Errors: BadValue for a text without room.
    """
    speed = rng.uniform(*PLACES_A_LETTER)
    said = [SILENCE] * int(rng.integers(0, 2))
    for word in text.split():
        said += [word] * max(1, round(len(word) * speed))
    if len(said) > places:
        raise BadValue(f"the text {text[:80]!r} lasts {len(said)} places; places = {places}")
    return " ".join(said + [SILENCE] * (places - len(said)))


def main() -> None:
    """The command above."""
    ours = argparse.ArgumentParser(
        prog="python -m moejax.training.chat_lines", description=(__doc__ or "").split("\n", 1)[0]
    )
    ours.add_argument("workdir", help="where `moejax describe` has run")
    ours.add_argument("texts", help="the file to write")
    ours.add_argument(
        "--extra", type=int, default=6000, help="other sentences of the embedded corpus' grammar (%(default)s)"
    )
    ours.add_argument(
        "--places", type=int, default=PLACES, help="windows in which a text is heard; 0: as it is (%(default)s)"
    )
    given = ours.parse_args()
    try:
        lines = lines_of(*pairs_of(given.workdir, given.extra), given.places)
    except Refused as error:
        sys.exit(f"{ours.prog}: {error}")
    write_text(Path(given.texts), "".join(line.replace("\n", "\\n") + "\n" for line in lines))
    print(len(lines), "lines")


if __name__ == "__main__":
    main()
