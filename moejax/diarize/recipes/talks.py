"""Recipes of corpora of talks: each gives its recordings part by part; a part that is not there is left out, a file
that is missing within one is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from moejax.diarize.recipes import transcripts
from moejax.diarize.recipes.place import Place, Recording, lines_of, spans_in, turns_in, turns_said
from moejax.diarize.turns import read_rttm
from moejax.errors import BadValue

SUFFIXES = ("wav", "flac", "sph", "mp3", "ogg", "opus", "m4a")
# Of no official split: speakers of these meetings are the least of those of the others (Renals and Swietojanski 2014)
ICSI_PARTS = {
    **dict.fromkeys(("bmr021", "bns001"), "dev"),
    **dict.fromkeys(("bmr013", "bmr018", "bro021"), "test"),
}
CHIME_PARTS = {"train": "train", "dev": "dev", "eval": "test"}
CONDITIONS = ("0L", "0S", "OV10", "OV20", "OV30", "OV40")


@dataclasses.dataclass(frozen=True)
class Rttms:
    """A corpus with an RTTM file for each recording; all are paths below the corpus, where {part} is its own name of a
    part and {name} the recording's. `parts`: {its name of a part: ours}.
    """

    parts: dict[str, str]
    rttm: tuple[str, ...]
    audio: tuple[str, ...]
    uem: tuple[str, ...] = ()

    def __call__(self, place: Place) -> Iterator[Recording]:
        for theirs, ours in self.parts.items():
            for path in place.files(*(one.format(part=theirs, name="*") for one in self.rttm)):
                name = path.stem
                audio, uem = ([one.format(part=theirs, name=name) for one in some] for some in (self.audio, self.uem))
                spans = spans_in(place.file(*uem), name) if uem else None
                yield Recording(name, ours, place.file(*audio), turns_in(path, name), spans)


def _ami(microphone: str) -> Rttms:
    """References of words alone, parts and UEM as BUT's AMI-diarization-setup has them (Landini et al. 2022)."""
    below = tuple(f"{top}{{name}}/audio/{{name}}.{microphone}.wav" for top in ("amicorpus/", "wav_db/", ""))
    setup = ("AMI-diarization-setup/", "")
    return Rttms(
        {part: part for part in ("train", "dev", "test")},
        tuple(f"{top}only_words/rttms/{{part}}/{{name}}.rttm" for top in setup),
        below,
        tuple(f"{top}uems/{{part}}/{{name}}.uem" for top in setup),
    )


ami, ami_far = _ami("Mix-Headset"), _ami("Array1-01")
voxconverse = Rttms(
    {"dev": "dev", "test": "test"},
    ("{part}/{name}.rttm", "voxconverse/{part}/{name}.rttm"),
    ("{part}/audio/{name}.wav", "{part}/{name}.wav", "voxconverse_{part}_wav/{name}.wav", "audio/{name}.wav"),
)


def dihard3(place: Place) -> Iterator[Recording]:
    """The third DIHARD challenge (LDC2020E12, LDC2021E02); the group says whether a recording is of the core set."""
    top = "third_dihard_challenge_"
    every = Rttms(
        {f"{top}dev": "dev", f"{top}eval": "test"},
        ("{part}/data/rttm/{name}.rttm",),
        ("{part}/data/flac/{name}.flac",),
        ("{part}/data/uem/{name}.uem",),
    )
    core: dict[str, bool] = {}
    for part in every.parts:
        if place.has(part):
            for where, line in list(lines_of(place.file(f"{part}/docs/recordings.tbl")))[1:]:
                fields = line.split()
                if len(fields) < 2 or fields[1] not in ("True", "False"):
                    raise BadValue(f"{where}: the second field says whether a recording is in core: True or False")
                core[fields[0]] = fields[1] == "True"
    for one in every(place):
        if one.name not in core:
            raise BadValue(f"recordings.tbl has no {one.name}; {place.expected()}")
        yield dataclasses.replace(one, group="core" if core[one.name] else "full")


def msdwild(place: Place) -> Iterator[Recording]:
    """MSDWild (Liu et al. 2022): one RTTM for a part; few talkers train and choose, many talkers test."""
    for theirs, ours in (("few.train", "train"), ("few.val", "dev"), ("many.val", "test")):
        for path in place.files(f"rttms/{theirs}.rttm"):
            for name, turns in read_rttm(path).items():
                audio = place.file(*(f"{top}/{name}.wav" for top in ("wav", "wavs", "raw_wav")))
                yield Recording(name, ours, audio, turns, group=theirs.partition(".")[0])


def ava_avd(place: Place) -> Iterator[Recording]:
    """AVA-AVD (Xu et al. 2022): turns are on the film's clock, its waves begin at the offset that split/ notes."""
    top = "dataset/" if place.has("dataset") else ""
    offsets = {}
    for where, line in lines_of(place.file(f"{top}split/offsets.txt")):
        name, _, offset = line.rpartition(" ")
        try:
            offsets[name.strip()] = float(offset)
        except ValueError:
            raise BadValue(f"{where}: {offset!r} is not a number of seconds") from None
    for theirs, ours in (("train", "train"), ("val", "dev"), ("test", "test")):
        for path in place.files(f"{top}split/{theirs}.list"):
            for _, name in lines_of(path):
                name = name.strip()
                audio = place.file(f"{top}waves/{name}.wav")
                if name not in offsets:
                    raise BadValue(f"split/offsets.txt has no {name}; {place.expected()}")
                by = offsets[name]
                turns = [
                    turn._replace(start=max(round(turn.start - by, 6), 0.0), end=round(turn.end - by, 6))
                    for turn in turns_in(place.file(f"{top}rttms/{name}.rttm"), name)
                    if turn.end > by
                ]
                yield Recording(name, ours, audio, turns)


def aishell4(place: Place) -> Iterator[Recording]:
    """AISHELL-4 (Fu et al. 2021): eight channels, which are heard as their mean. Its speakers have names within a
    meeting only.
    """
    for theirs in ("train_L", "train_M", "train_S", "test"):
        for path in place.files(f"{theirs}/TextGrid/*.TextGrid"):
            name, ours = path.stem, theirs.partition("_")[0]
            audio = place.file(*(f"{theirs}/wav/{name}.{suffix}" for suffix in ("flac", "wav")))
            said = [one._replace(speaker=f"{name}-{one.speaker}") for one in transcripts.text_grid(path)]
            yield Recording(name, ours, audio, turns_said(said), said=said, group=theirs.rpartition("_")[2])


def _icsi(*audio: str):
    def read(place: Place) -> Iterator[Recording]:
        """ICSI (Janin et al. 2003): turns are the segments with words of the original transcripts."""
        for path in place.files("transcripts/*.mrt", "*/transcripts/*.mrt"):
            if path.stem != "preambles":
                said = transcripts.mrt(path)
                file = place.file(*(one.format(name=path.stem) for one in audio))
                part = ICSI_PARTS.get(path.stem.lower(), "train")
                yield Recording(path.stem, part, file, turns_said(said), said=said)

    return read


icsi = _icsi(*(f"{top}{{name}}.interaction.wav" for top in ("", "NXT/", "Signals/", "{name}/", "Signals/{name}/")))
icsi_far = _icsi(*(f"{top}{{name}}/chan6.{kind}" for top in ("", "SPH/", "speech/") for kind in ("sph", "wav")))


def chime6(place: Place) -> Iterator[Recording]:
    """CHiME-6 (Watanabe et al. 2020): the first channel of the first array that a session has. What is scored stands in
    the challenge's UEM where that is there.
    """
    top = "CHiME6/" if place.has("CHiME6") else ""
    for theirs, ours in CHIME_PARTS.items():
        for path in place.files(f"{top}transcriptions/{theirs}/S*.json"):
            pattern = f"{top}audio/{theirs}/{path.stem}_U*.CH1.wav"
            audio = place.files(pattern) or [place.file(pattern)]
            said = transcripts.chime(path)
            uem = place.files(f"{top}uem/{theirs}/all.uem", f"{top}uem/{theirs}.uem")
            spans = spans_in(uem[0], path.stem) if uem else None
            yield Recording(path.stem, ours, audio[0], turns_said(said), spans, said)


def libricss(place: Place) -> Iterator[Recording]:
    """LibriCSS (Chen et al. 2020) as a room's array hears it, seven channels; session 0 chooses, results are told by
    condition.
    """
    top = "for_release/" if place.has("for_release") else ""
    for condition in CONDITIONS:
        for info in place.files(f"{top}{condition}/*/transcription/meeting_info.txt"):
            session = info.parents[1].relative_to(place.root)
            number = session.name.partition("_session")[2].partition("_")[0]
            if not number.isdigit():
                raise BadValue(f"{session} is no session's name (..._session0_actual0.0); {place.expected()}")
            said = transcripts.meeting_info(info)
            audio = place.file(f"{session}/record/raw_recording.wav")
            part = "dev" if number == "0" else "test"
            name = f"{condition}_session{number}"
            yield Recording(name, part, audio, turns_said(said), said=said, group=condition)


def folder(place: Place) -> Iterator[Recording]:
    """Any folder: NAME.rttm beside NAME.wav or anywhere below, NAME.uem where there is one; a folder called train, dev
    or test on the way is the part.
    """
    audio: dict[str, list[Path]] = {}
    for path in (path for suffix in SUFFIXES for path in place.files(f"**/*.{suffix}")):
        audio.setdefault(path.stem, []).append(path)
    uems = {path.stem: path for path in place.files("**/*.uem")}
    for path in place.files("**/*.rttm"):
        named = [one for one in path.relative_to(place.root).parts if one in ("train", "dev", "test")]
        for name, turns in read_rttm(path).items():
            name = path.stem if path.stem in audio else name
            some = audio.get(name) or [place.file(f"{name}.wav")]
            if len(some) > 1:
                raise BadValue(f"{path} is of {name}, and so are {some[0]} and {some[1]}")
            spans = spans_in(uems[name], name) if name in uems else None
            yield Recording(name, named[-1] if named else "test", some[0], turns, spans)
