"""Recipes of corpora of single speakers, which talks are simulated of: utterances with speakers and parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from moejax.diarize.recipes.place import Place, Utterance, lines_of
from moejax.diarize.turns import read_stm
from moejax.errors import BadValue

VOX1_TEST = frozenset(f"id{number}" for number in range(10270, 10310))
IGNORED = "ignore_time_segment_in_scoring"


def mini_librispeech(place: Place) -> Iterator[Utterance]:
    """OpenSLR 31. EEND's recipe trains on train-clean-5 and scores dev-clean-2, on which it also chooses; here every
    other speaker of dev-clean-2 chooses, and the others are asked once.
    """
    top = "LibriSpeech/" if place.has("LibriSpeech") else ""
    genders = _genders(place.root / f"{top}SPEAKERS.TXT")
    for theirs in ("train-clean-5", "dev-clean-2"):
        place.folder(f"{top}{theirs}")
        speakers = sorted({path.parents[1].name for path in place.files(f"{top}{theirs}/*/*/*.trans.txt")})
        for path in place.files(f"{top}{theirs}/*/*/*.trans.txt"):
            speaker = path.parents[1].name
            part = "train" if theirs == "train-clean-5" else ("dev", "test")[speakers.index(speaker) % 2]
            for _, line in lines_of(path):
                name, _, text = line.partition(" ")
                audio = place.file(str((path.parent / f"{name}.flac").relative_to(place.root)))
                yield Utterance(audio, speaker, part, text.strip(), genders.get(speaker, ""))


def _genders(path: Path) -> dict[str, str]:
    """{speaker: F or M} of LibriSpeech's SPEAKERS.TXT; nothing without it."""
    if not path.is_file():
        return {}
    rows = [line.split("|") for _, line in lines_of(path) if not line.startswith(";")]
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}


def tedlium(place: Place) -> Iterator[Utterance]:
    """TED-LIUM 2 and 3 (its parts of release 3 stand in legacy/): segments of a talk, whose speaker is its name up to
    the year. Laughter and music are left out.
    """
    for part in ("train", "dev", "test"):
        for path in place.files(f"legacy/{part}/stm/*.stm", f"{part}/stm/*.stm"):
            base = path.parents[1].relative_to(place.root)
            audio = place.file(*(f"{base}/sph/{path.stem}.{suffix}" for suffix in ("sph", "wav", "flac")))
            for said in (one for some in read_stm(path).values() for one in some):
                if said.text != IGNORED and said.end > said.start:
                    speaker, seconds = said.speaker.partition("_")[0], round(said.end - said.start, 6)
                    text = said.text.replace("<unk>", " ")
                    yield Utterance(audio, speaker, part, " ".join(text.split()), "", said.start, seconds)


def voxceleb(place: Place) -> Iterator[Utterance]:
    """VoxCeleb 1 and 2, without texts: id10001/VIDEO/00001.wav (or .m4a). Test are the speakers of VoxCeleb 1's test
    list and those in a folder with test in its name (vox2_test_aac); every twentieth of the others chooses.
    """
    for suffix in ("wav", "m4a", "flac"):
        files = place.files(f"**/id[0-9][0-9][0-9][0-9][0-9]/*/*.{suffix}")
        known = sorted({path.parents[1].name for path in files})
        place_of = {speaker: number for number, speaker in enumerate(known)}
        for path in files:
            speaker = path.parents[1].name
            above = "/".join(path.relative_to(place.root).parts[:-3]).lower()
            tests = speaker in VOX1_TEST or "test" in re.split("[^a-z]+", above)
            part = "test" if tests else ("dev" if place_of[speaker] % 20 == 19 else "train")
            yield Utterance(path, speaker, part)


def checked(place: Place, utterances: list[Utterance]) -> list[Utterance]:
    """As they are. Errors: BadValue where a speaker stands in two parts, or nothing was found."""
    parts: dict[str, str] = {}
    for one in utterances:
        if (other := parts.setdefault(one.speaker, one.part)) != one.part:
            raise BadValue(f"speaker {one.speaker} stands in {other} and in {one.part}; {place.expected()}")
    if not utterances:
        raise BadValue(f"{place.root} has no utterances; {place.expected()}")
    return utterances
