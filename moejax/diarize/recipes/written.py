"""What a recipe has read as files: RTTM, UEM and STM, lhotse's manifests and a card; or a table of utterances."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from moejax.diarize import lhotse, simulate
from moejax.diarize.recipes import single, table
from moejax.diarize.recipes.place import Place, Recording, Utterance
from moejax.diarize.turns import write_rttm, write_stm, write_uem
from moejax.errors import AlreadyThere, BadValue
from moejax.runtime.files import replacing_folder, write_json, write_text

BEYOND = 0.01  # share of the speech that may lie behind the end of the sound: labels are not sample-exact
PARTS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class Sound:
    """What the header of a file promises."""

    rate: int
    samples: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


def sound_of(path: Path) -> Sound:
    """Errors: BadValue for a file that libsndfile does not read."""
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError) as error:
        raise BadValue(f"{path} is no sound that can be read: {str(error).splitlines()[0]}") from error
    return Sound(int(info.samplerate), int(info.frames), int(info.channels))


def within(recording: Recording, seconds: float) -> Recording:
    """With turns, words and spans that end where the sound does. Errors: BadValue where more than a hundredth of the
    speech lies behind it: turns and sound are then of two recordings.
    """

    def cut(some):
        return [one._replace(end=min(one.end, seconds)) for one in some if one.start < seconds]

    turns = cut(recording.turns)
    total, kept = (sum(turn.end - turn.start for turn in some) for some in (recording.turns, turns))
    if total - kept > max(BEYOND * total, 1.0):
        reach = max(turn.end for turn in recording.turns)
        raise BadValue(
            f"{recording.audio} lasts {seconds:.1f} s, and the turns of {recording.name} reach {reach:.1f} s: they are"
            " of another recording, or the file was cut"
        )
    spans = recording.spans
    if spans is not None:
        spans = [(a, min(b, seconds)) for a, b in spans if a < seconds]
    return dataclasses.replace(recording, turns=turns, said=cut(recording.said), spans=spans)


def write_talks(place: Place, output: Path) -> dict[str, dict]:
    """Writes OUTPUT, whole or not at all: PART/NAME.rttm (.uem, .stm), PART/recordings.jsonl.gz, supervisions.jsonl.gz,
    card.json. {part: its card}. Errors: AlreadyThere; BadValue for a corpus without recordings, or what does not fit.
    """
    if output.exists():
        raise AlreadyThere(f"{output} is there already; name another folder, or remove it")
    recipe, parts = table.find(place.name), {}
    for one in recipe.read(place):
        assert isinstance(one, Recording)
        sound = sound_of(one.audio)
        held = parts.setdefault(one.part, {})
        if one.name in held:
            raise BadValue(
                f"two recordings of {one.part} are called {one.name}: {held[one.name][0].audio}, {one.audio}"
            )
        held[one.name] = within(one, sound.seconds), sound
    if not parts:
        raise BadValue(f"{place.root} has no recordings; {place.expected()}")
    parts = {part: list(parts[part].values()) for part in PARTS if part in parts}
    cards = {part: card(held, recipe.whole.get(part)) for part, held in parts.items()}
    with replacing_folder(output) as new:
        for part, held in parts.items():
            for one, _ in held:
                _write_recording(new / part / one.name, one)
            named = {one.name: [_plain(turn) for turn in one.turns] for one, _ in held}
            records = [
                lhotse.recording(one.name, str(one.audio.resolve()), sound.rate, sound.samples, sound.channels)
                for one, sound in held
            ]
            lhotse.write(new / part / "recordings.jsonl.gz", records, "recording")
            lhotse.write(new / part / "supervisions.jsonl.gz", lhotse.supervisions(named), "supervision")
        write_json(new / "card.json", {"recipe": place.name, "about": recipe.about, "parts": cards})
    return cards


def _write_recording(path: Path, one: Recording) -> None:
    write_rttm(path.with_name(f"{one.name}.rttm"), {one.name: [_plain(turn) for turn in one.turns]})
    if one.spans is not None:
        write_uem(path.with_name(f"{one.name}.uem"), {one.name: one.spans})
    if one.said:
        write_stm(path.with_name(f"{one.name}.stm"), {one.name: [_plain(said) for said in one.said]})


def _plain(one):
    """Speakers as RTTM can hold them."""
    return one._replace(speaker="_".join(one.speaker.split()) or "unnamed")


def card(held: Iterable[tuple[Recording, Sound]], whole: int | None = None) -> dict:
    """What a part is like. `whole`: how many recordings it has where nothing is missing."""
    held = list(held)
    found = dataclasses.asdict(simulate.card([(one.turns, sound.seconds) for one, sound in held]))
    counts = [len({turn.speaker for turn in one.turns}) for one, _ in held]
    speakers = {"least": min(counts), "mean": round(float(np.mean(counts)), 2), "most": max(counts)}
    scored = [sum(b - a for a, b in one.spans) if one.spans is not None else sound.seconds for one, sound in held]
    found |= {"recordings": found.pop("talks"), "whole": whole, "speakers": speakers}
    groups = {group: sum(one.group == group for one, _ in held) for group in sorted({one.group for one, _ in held})}
    found |= {"scored_hours": round(sum(scored) / 3600, 3), "groups": {} if groups.keys() == {""} else groups}
    return found | {"rates": sorted({sound.rate for _, sound in held}), "channels": max(s.channels for _, s in held)}


def line(part: str, found: dict) -> str:
    """A card in a line."""
    of, speakers = f" of {found['whole']}" if found["whole"] else "", found["speakers"]
    return (
        f"{part}: {found['recordings']}{of} recordings, {found['hours']:.2f} h ({found['scored_hours']:.2f} scored),"
        f" {speakers['least']} to {speakers['most']} speakers ({speakers['mean']:.1f} in the mean),"
        f" {100 * found['silent']:.0f} % silent, {100 * found['overlapped_of_speech']:.0f} % of the speech overlapped,"
        f" {found['turns']} turns of {found['median_turn']:.1f} s in the median"
    )


COLUMNS = ("audio_filepath", "text", "speaker", "gender", "split", "offset", "duration")


def write_speakers(place: Place, file: Path) -> dict[str, dict]:
    """Writes a table of utterances that `data.source=folder` reads (NeMo's columns), below which their sound lies.
    {part: its card}. Errors: AlreadyThere; BadValue where sound lies elsewhere, or as `single.checked`.
    """
    if file.exists():
        raise AlreadyThere(f"{file} is there already; name another file with --output, or remove it")
    base = file.parent.resolve()
    every = [one for one in table.find(place.name).read(place) if isinstance(one, Utterance)]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    cards: dict[str, dict] = {}
    speakers: dict[str, set] = {}
    for one in single.checked(place, every):
        audio = one.audio.resolve()
        if base not in audio.parents:
            raise BadValue(f"the table {file} must stand above the sound that it names, such as {audio}")
        piece = ("", "") if one.seconds is None else (f"{one.start:g}", f"{one.seconds:g}")
        rows.writerow((os.path.relpath(audio, base), one.text, one.speaker, one.gender, one.part, *piece))
        found = cards.setdefault(one.part, {"utterances": 0, "speakers": 0})
        found["utterances"] += 1
        speakers.setdefault(one.part, set()).add(one.speaker)
    write_text(file, text.getvalue())
    return {part: {**cards[part], "speakers": len(speakers[part])} for part in PARTS if part in cards}
