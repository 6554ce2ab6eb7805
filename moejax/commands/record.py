"""`moejax personalize --record`: sentences one after the other, and what somebody says to each."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moejax.errors import BadValue

# Short, everyday, and together all sounds of English several times.
_OURS = """
Good morning, how are you today?
Please turn on the light in the kitchen.
I would like a cup of tea with milk.
Where did you put my blue jacket?
The weather should be better on Thursday.
Could you open the window a little?
We went to the beach with both children.
Call my brother this evening, please.
What time does the next train leave?
She bought fresh bread and yellow cheese.
My phone number ends in three seven nine.
The doctor will see you at a quarter past four.
Play some quiet music in the living room.
I usually wake up early in the morning.
Is there anything good to watch tonight?
They built their house near the old church.
Remind me to water the plants tomorrow.
The chair is too low for that table.
He just joined a group that sings in the village.
Which of these two roads goes to the station?
I am looking for my glasses again.
Thank you very much for your help.
Can you hear the thunder far away?
Put the shopping on the shelf over there.
The judge asked for a short pause.
Write a message to my sister, please.
Our neighbour has a large garden with apple trees.
It costs five pounds and eighty pence.
Stop the car at the corner, I will get out.
There was a strange noise under the bridge.
We should visit your aunt in July.
The boy threw the ball over the fence.
Do you want to go out for a walk?
My favourite colour is somewhere between green and brown.
Pass me the salt and the pepper.
I forgot to lock the front door.
Six of them were there, and nobody knew why.
Please speak slowly, I did not understand.
The ship leaves the harbour at noon.
Good night, and sleep well.
"""
SENTENCES: list[str] = [line for line in _OURS.splitlines() if line]
Record = Callable[[Callable[[], object]], Any]  # until it returns: samples [S] (help does not wait for NumPy)
Ask = Callable[[str], str]


def sentences(path: str | None) -> list[str]:
    """Of a file, one a line, or our own. Errors: a file that is not there, or empty."""
    if path is None:
        return SENTENCES
    place = Path(path)
    if not place.is_file():
        raise BadValue(f"--sentences {path}: there is no such file")
    found = [" ".join(line.split()) for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        raise BadValue(f"--sentences {path}: no sentence in it; one a line")
    return found


def session(texts: list[str], folder: Path, record: Record, ask: Ask = input, show=print) -> int:
    """Records sentences into `folder` (001.flac ... and metadata.csv, written anew after each) and says how many are
    there. What was recorded before stays, so a session that was ended goes on.
    """
    import soundfile

    from moejax.audio.constants import SAMPLE_RATE
    from moejax.audio.microphone import flaw

    rows = _rows(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts, 1):
        if text in rows.values():
            continue
        show(f"\n{number} of {len(texts)}:  {text}")
        while True:
            answer = ask("[return: record; s: leave it out; q: that is all] ").strip().lower()
            if answer == "q":
                return len(rows)
            if answer == "s":
                break
            wave_S = record(lambda: ask("  recording, return ends it "))
            wrong = flaw(wave_S)
            if wrong and ask(f"  {wrong}\n  [return: once more; k: keep it] ").strip().lower() != "k":
                continue
            name = f"{number:03d}.flac"
            while name in rows:  # of other sentences, before
                name = f"{int(name[:-5]) + len(texts):03d}.flac"
            soundfile.write(folder / name, wave_S, SAMPLE_RATE, subtype="PCM_16")
            rows[name] = text
            _write(folder, rows)
            break
    return len(rows)


def _rows(folder: Path) -> dict[str, str]:
    """{file: text} of what is there."""
    table = folder / "metadata.csv"
    if not table.is_file():
        return {}
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"file", "text"} <= rows[0].keys():
        raise BadValue(f"--record: {table} is not ours: it has no columns file, text; record into another folder")
    return {row["file"]: row["text"] for row in rows if (folder / row["file"]).is_file()}


def _write(folder: Path, rows: dict[str, str]) -> None:
    from moejax.runtime import files

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([("file", "text"), *sorted(rows.items())])
    files.write_text(folder / "metadata.csv", out.getvalue())
