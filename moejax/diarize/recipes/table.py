"""Which recipes there are, what each expects to find, and how many recordings a whole part has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from moejax.diarize.recipes import single, talks
from moejax.diarize.recipes.place import Place, Recording, Utterance
from moejax.errors import BadValue


@dataclasses.dataclass(frozen=True)
class Recipe:
    """`read` gives recordings of talks, or utterances of single speakers (`kind`). `whole`: {part: recordings}."""

    about: str
    layout: str
    read: Callable[[Place], Iterator[Recording] | Iterator[Utterance]]
    kind: str = "talks"
    whole: dict[str, int] = dataclasses.field(default_factory=dict)


_AMI = (
    "only_words/rttms/PART/NAME.rttm and uems/PART/NAME.uem (of github.com/BUTSpeechFIT/AMI-diarization-setup, or"
    " in a folder of that name), and amicorpus/NAME/audio/NAME.{}.wav"
)
_ICSI = "transcripts/NAME.mrt (the original transcripts), and {}"
RECIPES = {
    "ami": Recipe(
        "AMI, mix of the headsets, references of words alone",
        _AMI.format("Mix-Headset"),
        talks.ami,
        whole={"train": 136, "dev": 18, "test": 16},
    ),
    "ami_far": Recipe(
        "AMI, first channel of the first array",
        _AMI.format("Array1-01"),
        talks.ami_far,
        whole={"train": 136, "dev": 18, "test": 16},
    ),
    "icsi": Recipe(
        "ICSI meetings, mix of the headsets",
        _ICSI.format("NAME.interaction.wav, or NXT/, or Signals/"),
        talks.icsi,
        whole={"train": 70, "dev": 2, "test": 3},
    ),
    "icsi_far": Recipe(
        "ICSI meetings, the table microphone chan6",
        _ICSI.format("NAME/chan6.sph, or speech/, or SPH/"),
        talks.icsi_far,
        whole={"train": 70, "dev": 2, "test": 3},
    ),
    "aishell4": Recipe(
        "AISHELL-4, Mandarin meetings",
        "PART/TextGrid/NAME.TextGrid and PART/wav/NAME.flac, where PART is train_L, train_M, train_S, test",
        talks.aishell4,
        whole={"train": 191, "test": 20},
    ),
    "voxconverse": Recipe(
        "VoxConverse (labels 0.3)",
        "dev/NAME.rttm and test/NAME.rttm (of github.com/joonson/voxconverse), and the sound in dev/audio/NAME.wav,"
        " dev/NAME.wav or voxconverse_dev_wav/NAME.wav, of test alike",
        talks.voxconverse,
        whole={"dev": 216, "test": 232},
    ),
    "ava_avd": Recipe(
        "AVA-AVD, films",
        "rttms/NAME.rttm, split/train.list, val.list and test.list, split/offsets.txt and waves/NAME.wav, as its"
        " scripts/preprocessing.py leaves them in dataset/",
        talks.ava_avd,
        whole={"train": 243, "dev": 54, "test": 54},
    ),
    "msdwild": Recipe(
        "MSDWild, casual talks on video",
        "rttms/few.train.rttm, few.val.rttm and many.val.rttm, and wav/NAME.wav",
        talks.msdwild,
        whole={"train": 2476, "dev": 490, "test": 177},
    ),
    "dihard3": Recipe(
        "DIHARD III (LDC2020E12, LDC2021E02)",
        "third_dihard_challenge_dev/data/rttm/NAME.rttm, data/uem/NAME.uem, data/flac/NAME.flac and"
        " docs/recordings.tbl, of third_dihard_challenge_eval alike",
        talks.dihard3,
        whole={"dev": 254, "test": 259},
    ),
    "chime6": Recipe(
        "CHiME-6, dinner parties",
        "CHiME6/transcriptions/PART/S02.json and CHiME6/audio/PART/S02_U01.CH1.wav, where PART is train, dev, eval;"
        " scored is CHiME6/uem/PART/all.uem where there is one",
        talks.chime6,
        whole={"train": 16, "dev": 2, "test": 2},
    ),
    "libricss": Recipe(
        "LibriCSS, read sentences played in a room",
        "for_release/OV10/SESSION/transcription/meeting_info.txt and record/raw_recording.wav, of 0L, 0S,"
        " OV10 ... OV40",
        talks.libricss,
        whole={"dev": 6, "test": 54},
    ),
    "folder": Recipe(
        "any folder of recordings and RTTM",
        "NAME.rttm and NAME.wav, anywhere; NAME.uem says what is scored",
        talks.folder,
    ),
    "tedlium": Recipe(
        "TED-LIUM 2 or 3",
        "PART/stm/NAME.stm and PART/sph/NAME.sph, or these in legacy/, where PART is train, dev, test",
        single.tedlium,
        "speakers",
    ),
    "voxceleb": Recipe(
        "VoxCeleb 1 or 2", "id10001/VIDEO/00001.wav (or .m4a), in any folder", single.voxceleb, "speakers"
    ),
    "mini_librispeech": Recipe(
        "Mini LibriSpeech (OpenSLR 31)",
        "LibriSpeech/train-clean-5/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt and the .flac beside it, of dev-clean-2"
        " alike",
        single.mini_librispeech,
        "speakers",
    ),
}


def find(name: str) -> Recipe:
    """Errors: BadValue naming those that there are."""
    if name not in RECIPES:
        raise BadValue(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def place(name: str, root: str | Path) -> Place:
    """A corpus' folder. Errors: as `find`; NotThere without the folder."""
    return Place(name, Path(root), find(name).layout)
