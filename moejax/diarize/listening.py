"""A trained diarizer at work: samples in, turns out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.convert import find
from moejax.diarize import naming, resegmentation, stitching, talks
from moejax.diarize.deciding import Deciding
from moejax.diarize.talks import RATE
from moejax.diarize.train import EXISTS, there
from moejax.diarize.turns import Turn
from moejax.diarize.voices import spoken
from moejax.errors import BadValue, NotThere
from moejax.nn.diarizers import Sizes
from moejax.runtime import compilation
from moejax.tasks import diarization as task
from moejax.train.params_file import load_params
from moejax.training import base
from moejax.types import Params

FILE = ("diarizer", "params.safetensors")
OVERLAP = 1 / 3  # of a window, which the next one hears again


@dataclasses.dataclass
class Diarizer:
    """`diarizer(samples) -> [Turn]`, speakers named in the order in which they begin.

    A recording longer than a window (as long as the talks that it learnt from) is heard in windows that overlap.
    """

    params: Params
    sizes: Sizes
    deciding: Deciding
    seconds: float
    listen: Callable[[np.ndarray], np.ndarray]  # samples [S] of at most a window -> what is heard [T, ...]
    workdir: Path = Path()

    def __post_init__(self):
        graphdef, _ = task.init(self.sizes, 0)
        self._hear = task.make_hear(graphdef)

    def __call__(self, audio_S: np.ndarray, speakers: int = 0, threshold: float | None = None) -> list[Turn]:
        """Turns in samples at 16 kHz. `speakers`: how many there are, where that is known. `threshold`: in place of the
        one that dev chose; lower hears more. Errors: BadValue for more speakers than the network tells apart.
        """
        if speakers > self.sizes.most:
            raise BadValue(f"{speakers} speakers; this diarizer tells {self.sizes.most} apart")
        if not len(audio_S):
            return []
        deciding = self.deciding if threshold is None else dataclasses.replace(self.deciding, threshold=threshold)
        prob_TS, vectors_TW = self._asked(audio_S, speakers)

        def again(active_ST: np.ndarray) -> np.ndarray:
            assert self.resegmentation is not None and vectors_TW is not None
            found_ST = self.resegmentation(active_ST, prob_TS, vectors_TW)
            lost = found_ST.any(1).sum() < active_ST.any(1).sum()
            return active_ST if speakers and lost else found_ST  # so many were asked for

        return deciding.turns(prob_TS, RATE, again=None if self.resegmentation is None else again)

    @functools.cached_property
    def resegmentation(self) -> resegmentation.Resegmentation | None:
        """None where dev had no gain by it."""
        return resegmentation.load(self.workdir / FILE[0] / resegmentation.FILE)

    @functools.cached_property
    def voices(self) -> naming.Voices:
        """How voices are compared. Errors: as `naming.load`."""
        return naming.load(self.workdir / FILE[0] / naming.FILE)

    def voice(self, waves: Iterable[np.ndarray]) -> np.ndarray:
        """The voice of one speaker [D], by phrases that he says alone. Errors: BadValue where nothing can be heard in
        them; as `voices`.
        """
        joined, turns, at = [], [], 0.0
        for wave_S in waves:  # behind one another, because a window costs the same whatever is in it
            turns += [Turn(at + start, at + end, "one") for start, end in spoken(wave_S)]
            joined.append(wave_S)
            at += len(wave_S) / SAMPLE_RATE
        found = self._heard(np.concatenate(joined), turns) if turns else {}
        if not found:
            raise BadValue("nothing can be heard in these phrases")
        total_LD, count = found["one"]
        return self.voices.vector(total_LD / count)

    def named(self, audio_S: np.ndarray, turns: list[Turn], known: Mapping[str, np.ndarray]) -> list[Turn]:
        """Turns with the names of known voices (`voice`) in place of their speakers', where they are alike; who is
        alone for less than a second keeps his. The recording is heard a second time. Errors: as `voices`.
        """
        voices, own = self.voices, {}
        for speaker, (total_LD, count) in self._heard(audio_S, turns).items():
            if count >= naming.LEAST:
                own[speaker] = voices.vector(total_LD / count)
        names = voices.names(own, known)
        return [turn._replace(speaker=names.get(turn.speaker, turn.speaker)) for turn in turns]

    def _heard(self, audio_S: np.ndarray, turns: list[Turn]) -> dict[str, tuple[np.ndarray, int]]:
        """{speaker: (sum over frames in which he speaks alone [L, D], how many these are)}."""
        size, found = round(self.seconds * SAMPLE_RATE), {}
        alone = naming.alone(turns, talks.frames_of(len(audio_S))) if turns else {}
        for at in range(0, len(audio_S), size):
            first = round(at * RATE / SAMPLE_RATE)
            heard_TLD = naming.layers(self.listen(audio_S[at : at + size]))
            for speaker, chosen_T in alone.items():
                mask_T = chosen_T[first : first + len(heard_TLD)]
                if mask_T.any():
                    total, count = found.get(speaker, (0.0, 0))
                    found[speaker] = total + heard_TLD[: len(mask_T)][mask_T].sum(0), count + int(mask_T.sum())
        return found

    def probabilities(self, audio_S: np.ndarray, speakers: int = 0) -> np.ndarray:
        """[T, speakers] by the network alone, ten frames a second."""
        return self._asked(audio_S, speakers)[0]

    def _asked(self, audio_S: np.ndarray, speakers: int) -> tuple[np.ndarray, np.ndarray | None]:
        """(probabilities [T, speakers], vectors [T, W] that resegmentation compares voices by)."""
        size = round(self.seconds * SAMPLE_RATE)
        hop = round(size * (1 - OVERLAP) / SAMPLE_RATE) * SAMPLE_RATE or size
        last = max(len(audio_S) - size, 0)
        last = -(-last // (SAMPLE_RATE // int(RATE))) * (SAMPLE_RATE // int(RATE))
        starts = [*range(0, last, hop), last]
        frames, space = talks.frames_of(len(audio_S)), self.resegmentation and self.resegmentation.space
        windows, vectors_TW = [], None if space is None else np.zeros((frames, len(space.spread_W)))
        for at in starts:
            heard = np.asarray(self.listen(audio_S[at : at + size]))[: round(self.seconds * RATE)]
            windows.append(self._window(heard, at, speakers))
            if space is not None and vectors_TW is not None:
                first = windows[-1].start
                vectors_TW[first : first + len(heard)] = space.vectors(heard)[: frames - first]
        return stitching.stitched(windows, frames, speakers), vectors_TW

    def _window(self, heard: np.ndarray, at: int, speakers: int) -> stitching.Window:
        frames = round(self.seconds * RATE)
        padded = np.zeros((1, frames, *heard.shape[1:]), heard.dtype)
        padded[0, : len(heard)] = heard
        batch = {"states_BTLD" if padded.ndim == 4 else "features_BTF": padded}
        found = self._hear(self.params, batch | {"frames_B": np.array([len(heard)], np.int32)})
        prob_TS, exists_S, frames_TD = (np.asarray(one[0], np.float64) for one in found)
        prob_TS = prob_TS[: len(heard), :speakers] if speakers else there(prob_TS[: len(heard)], exists_S, EXISTS)
        voice_SD = stitching.voices(prob_TS, frames_TD[: len(heard)])
        return stitching.Window(round(at * RATE / SAMPLE_RATE), prob_TS, voice_SD)


def opened(workdir: str | Path) -> Diarizer:
    """Of a workdir in which the stage `diarizer` is finished.

    Errors: NotThere where it is not, or where the encoder's weights are gone; BadValue where they are others now.
    """
    compilation.keep_programs()
    file = Path(workdir).joinpath(*FILE)
    if not file.is_file():
        raise NotThere(f"{workdir} has no diarizer: moejax diarizer --config configs/diarize.py --workdir {workdir}")
    params, meta = load_params(file)
    sizes = Sizes(**{**meta["sizes"], "hears": tuple(meta["sizes"]["hears"])})
    return Diarizer(
        params, sizes, Deciding(**meta["deciding"]), meta["seconds"], _listener(meta, workdir), Path(workdir)
    )


def _listener(meta: dict, workdir) -> Callable[[np.ndarray], np.ndarray]:
    if meta["hears"] == "logmel":
        return lambda audio_S: talks.logmel(np.pad(audio_S, (0, max(4000 - len(audio_S), 0))))[: _frames(audio_S)]
    try:
        folder = find.model(meta["pretrained"])
    except NotThere as error:
        raise NotThere(f"the diarizer of {workdir} hears {meta['pretrained']}: {error}") from error
    if base.content(folder) != meta["encoder"]:
        raise BadValue(f"the diarizer of {workdir} learnt from another {meta['pretrained']} than stands at {folder}")
    hear, _ = talks.encoder(folder, meta["dtype"])
    return lambda audio_S: hear(audio_S[None])[0]


def _frames(audio_S) -> int:
    return max(talks.frames_of(len(audio_S)), 1)
