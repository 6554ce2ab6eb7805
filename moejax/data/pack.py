"""Training windows as published Whispers hear them: utterances joined with silences, targets with times.

    <|startoftranscript|><|en|><|transcribe|><|0.40|> one two<|1.28|><|1.90|> three<|2.36|><|endoftext|>

Window i of an epoch is a function of (seed, epoch, i) alone, so that the stream is the same for any number of workers
and resumes at any batch. Format of the targets: Radford et al. 2022, section 2.3, and openai/whisper, decoding.py and
transcribe.py (what the prompt holds, which positions decoding can reach).
"""

import copy
import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from moejax.audio.constants import SAMPLE_RATE, TIMESTAMP_STEP
from moejax.data.collate import assemble
from moejax.errors import BadValue
from moejax.speech.background import KINDS, background
from moejax.types import Batch

_STEP = round(TIMESTAMP_STEP * SAMPLE_RATE)
_CHANCES = ("nospeech", "empty", "plain", "prompt", "abrupt", "full", "cut")  # drawn once for each window
_HEARD = 0.1  # seconds of a cut utterance that must be audible for it to count as begun


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What windows are made of. Shares are probabilities of a window; ranges are drawn uniformly."""

    one_speaker: bool = True  # all utterances of a window are of one speaker; False: of anybody
    plain: float = 0.2  # share without times (<|notimestamps|>); 1 for none with times
    prompt: float = 0.3  # share with the end of a previous text before the start token
    prompt_tokens: int = 223  # longest such text: half the decoder's 448 positions less one, as in the reference
    nospeech: float = 0.05  # share of silence, noise or tones, whose target after the start token is <|nospeech|>
    empty: float = 0.0  # of these, share taught to write nothing after language and task are given
    # Of a window with times at most so many utterances are written, then the time at which the next begins; 0 for all.
    # Decoders go on from there: a small model need not know 30 s by heart
    most: int = 0
    # Share in which all but the last utterance are given with their texts, as the phrases by which `decode.enrolled`
    # makes a speaker known: 1 to `phrases` of them, `pause` seconds after each, `new` seconds left behind them
    enrolled: float = 0.0
    phrases: int = 5
    pause: float = 0.5
    new: float = 8.0
    full: float = 0.7  # share filled to the end; the others end anywhere, with silence behind
    cut: float = 0.6  # of the full ones, share with a last utterance that the window's end cuts
    abrupt: float = 0.2  # share that speech begins at once; elsewhere `lead` comes first
    lead: tuple[float, float] = (0.0, 1.0)  # seconds before the first utterance
    gap: tuple[float, float] = (0.1, 1.2)  # seconds between utterances
    speed: float = 0.0  # a window is played within 1 +- this of its speed (pitch changes along)
    gain: float = 0.0  # each utterance is louder or softer by at most this many decibels
    noise: float = 0.5  # share of windows with speech that have a noise under all of it
    noise_level: tuple[float, float] = (1e-4, 1e-2)  # its root mean square, drawn on a logarithmic scale

    def __post_init__(self):
        for name in (*_CHANCES, "noise", "enrolled"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadValue(f"pack.{name} is {getattr(self, name)}; a share lies between 0 and 1")
        for name in ("lead", "gap", "noise_level"):
            low_high = getattr(self, name)
            if len(low_high) != 2 or not 0 <= low_high[0] <= low_high[1]:
                raise BadValue(f"pack.{name} is {tuple(low_high)}; needs (lowest, highest), 0 <= lowest <= highest")
        if not self.noise_level[0] > 0:
            raise BadValue(f"pack.noise_level is {self.noise_level}; the lowest must be above 0")
        if not 0 <= self.speed < 0.5:
            raise BadValue(f"pack.speed is {self.speed}; needs 0 <= speed < 0.5")
        for name in ("gain", "prompt_tokens", "most", "pause", "new"):
            if getattr(self, name) < 0:
                raise BadValue(f"pack.{name} is {getattr(self, name)}; 0 or more")
        if self.phrases < 1:
            raise BadValue(f"pack.phrases is {self.phrases}; at least 1")


@dataclasses.dataclass(frozen=True)
class Piece:
    """Utterance `row` from sample `start` on, `samples` long as played; `whole` unless the window's end cuts it."""

    row: int
    start: int
    samples: int
    whole: bool = True


@dataclasses.dataclass(frozen=True)
class Window:
    """One drawn window. `kind`: times, plain, nospeech or empty. `prompt` ids begin with <|startofprev|>, or are ().

    enrolled: what is said in all but the last piece is given.
    """

    kind: str
    pieces: tuple[Piece, ...]
    prompt: tuple[int, ...]
    speed: float
    seed: tuple[int, ...]  # of what is drawn while the audio is made
    enrolled: bool = False


class Packer:
    """Windows of `window` samples out of utterances; an epoch has one for each utterance, which comes first in it.

    audio       row -> float32 [S] at 16 kHz; must pickle for loader processes
    samples     of each row, at most `window`; texts and speakers in the same order
    room        most tokens of the model's decoder (max_target_positions)
    Calling it makes the Batch of some window numbers (epoch * len + index), as `pipeline.loader` does. Errors: a row
    that is too long, or whose tokens do not fit.
    """

    def __init__(self, *, audio, samples, texts, speakers, tokenizer, language, window, room, recipe, seed=0):
        self.audio, self.samples, self.texts = audio, np.asarray(samples, np.int64), list(texts)
        self.window, self.recipe, self.seed = int(window), recipe, int(seed)
        if not len(self.samples):
            raise BadValue("no utterances to pack")
        for row in np.flatnonzero((self.samples < 1) | (self.samples > self.window))[:1]:
            have = f"row {row} has {self.samples[row]} samples"
            raise BadValue(f"pack: {have}; windows of {self.window} hold 1 to that many")
        if self.window > 30 * SAMPLE_RATE:
            raise BadValue(f"pack: a window has {self.window / SAMPLE_RATE} s; Whisper's times end at 30 s")
        self.eot, self.sot, self.sot_prev = tokenizer.eot, tokenizer.sot, tokenizer.sot_prev
        self.no_speech, self.begin = tokenizer.no_speech, tokenizer.timestamp_begin
        self.timed = tuple(tokenizer.prefix(language, "transcribe", timestamps=True))
        self.untimed = tuple(tokenizer.prefix(language, "transcribe"))
        self.ids = [tuple(tokenizer.encode(text)) for text in self.texts]
        groups = speakers if recipe.one_speaker else np.zeros(len(self.samples), np.int64)
        _, self.group = np.unique(np.asarray(groups), return_inverse=True)
        self.members = [np.flatnonzero(self.group == g) for g in range(self.group.max() + 1)]
        self._order = functools.lru_cache(maxsize=2)(self._permuted)
        self.limit = room - (1 + recipe.prompt_tokens if recipe.prompt and recipe.prompt_tokens else 0)
        longest = max(range(len(self.ids)), key=lambda row: len(self.ids[row]))
        if (needs := len(self.untimed) + len(self.ids[longest]) + 4) > self.limit:
            raise BadValue(f"pack: row {longest} needs {needs} tokens; beside a prompt the model has {self.limit}")
        self.limit = self._longest(needs)
        prompted = recipe.prompt > 0 and recipe.prompt_tokens > 0
        self.length = -(-(self.limit - 1 + (1 + recipe.prompt_tokens if prompted else 0)) // 8) * 8

    def __len__(self):
        return len(self.samples)

    def _longest(self, needs):
        """Tokens that 95 of 100 windows stay below, from then on the limit of all: the batch's shape is tight, and the
        densest windows end a little earlier.
        """
        drawn = [self.draw(number) for number in range(256)]
        own = [len(self.tokens(window)[0]) - len(window.prompt) for window in drawn]
        return min(self.limit, max(needs, int(np.quantile(own, 0.95))))

    @property
    def scored(self) -> int:
        """Most scored positions of a window."""
        return self.limit - 1

    def _permuted(self, epoch):
        return np.random.default_rng([self.seed, epoch]).permutation(len(self))

    def __getstate__(self):  # for worker processes; the cache holds a bound method
        return {name: value for name, value in self.__dict__.items() if name != "_order"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._order = functools.lru_cache(maxsize=2)(self._permuted)

    def draw(self, number: int) -> Window:
        """The window of this number: what is said when. Reads no audio."""
        epoch, index = divmod(int(number), len(self))
        first, seed, recipe = int(self._order(epoch)[index]), (self.seed, epoch, index), self.recipe
        rng = np.random.default_rng(seed)
        chance = rng.random(len(_CHANCES))
        chosen = {name: value < getattr(recipe, name) for name, value in zip(_CHANCES, chance, strict=True)}
        speed = max(1 + recipe.speed * rng.uniform(-1, 1), self.samples[first] / self.window)
        order = self._others(rng, first)
        if chosen["nospeech"]:
            kind, pieces = "empty" if chosen["empty"] else "nospeech", ()
        elif self._drawn(rng) and (pieces := self._behind_phrases(rng, order, first, speed)):
            kind = "plain" if rng.random() < 0.5 else "times"  # people ask for either
            return Window(kind, pieces, (), speed, (*seed, 1), enrolled=True)
        else:
            kind = "plain" if chosen["plain"] else "times"
            pieces = self._fill(rng, kind, (first, *order), speed, chosen)
        prompt = ()
        if chosen["prompt"] and recipe.prompt_tokens:
            used = {piece.row for piece in pieces}
            prompt = self._prompt(rng, [row for row in order[::-1] if row not in used], timed=kind != "plain")
        return Window(kind, pieces, prompt, speed, (*seed, 1))

    def _others(self, rng, first):
        others = self.members[self.group[first]]
        return [int(row) for row in rng.permutation(others[others != first])]

    def _fill(self, rng, kind, order, speed, chosen):
        recipe, pieces = self.recipe, []
        length = max(1, int(self.samples[order[0]] / speed))
        at = 0 if chosen["abrupt"] else min(_seconds(rng, recipe.lead), self.window - length)
        end = self.window if chosen["full"] else at + rng.uniform(0, 1) * (self.window - at)
        room = self.limit - len(self.untimed) - 1
        for row in order:
            length = max(1, int(self.samples[row] / speed))
            if pieces and at >= end:
                break
            if at + length > self.window:
                if chosen["full"] and chosen["cut"] and at + _HEARD * SAMPLE_RATE < self.window:
                    pieces.append(Piece(row, at, self.window - at, whole=False))
                break
            unwritten = recipe.most and len(pieces) >= recipe.most
            if unwritten and kind == "plain":
                break
            room -= 0 if unwritten else len(self.ids[row]) + (2 if kind == "times" else 0)
            if pieces and room < 0:
                break
            pieces.append(Piece(row, at, length))
            at += length + _seconds(rng, recipe.gap)
        return tuple(pieces)

    def _drawn(self, rng) -> bool:
        """Whether a window is of an enrolled speaker. Where none is nothing is drawn: others stay what they were."""
        return self.recipe.enrolled > 0 and rng.random() < self.recipe.enrolled

    def _behind_phrases(self, rng, order, last, speed):
        """Phrases from the window's beginning, then utterance `last`; () where there is room for none."""
        length = max(1, int(self.samples[last] / speed))
        room = self.limit - len(self.untimed) - 1 - len(self.ids[last]) - 2
        wanted, at, pieces = int(rng.integers(1, self.recipe.phrases + 1)), 0, []
        for row in order:
            own = max(1, int(self.samples[row] / speed))
            behind = -(-(at + own + round(self.recipe.pause * SAMPLE_RATE)) // _STEP) * _STEP  # on whole timestamps
            needs = len(self.ids[row]) + 2
            left = max(length, round(self.recipe.new * SAMPLE_RATE))
            if len(pieces) < wanted and behind + left <= self.window and needs <= room:
                pieces.append(Piece(row, at, own))
                at, room = behind, room - needs
        return (*pieces, Piece(last, at, length)) if pieces else ()

    def _prompt(self, rng, rows, timed):
        """The last ids, as many as drawn, of a previous window's text; half of those with times keep their times."""
        wanted, ids, at = int(rng.integers(1, self.recipe.prompt_tokens + 1)), [], 0
        timed = timed and rng.random() < 0.5
        for row in rows:
            if len(ids) >= wanted:
                break
            if at + self.samples[row] > self.window:
                at = 0
            span = (self._time(at), self._time(at + self.samples[row]))
            ids += [span[0], *self.ids[row], span[1]] if timed else self.ids[row]
            at += int(self.samples[row]) + _seconds(rng, self.recipe.gap)
        return (self.sot_prev, *ids[-wanted:]) if ids else ()

    def _time(self, sample):
        return self.begin + round(float(sample) / SAMPLE_RATE / TIMESTAMP_STEP)

    def tokens(self, window: Window) -> tuple[list[int], int]:
        """Ids of a window, prompt to end token, and how many of them are given: all that follow are scored.

        Language, task and <|notimestamps|> are predicted too, as in training of the published models: without that the
        probability of <|nospeech|> after the start token would mean nothing.
        """
        if window.kind == "nospeech":
            own, given = [self.sot, self.no_speech, self.eot], 1
        elif window.kind == "empty":
            nothing = (*self.timed, self.begin) if self.recipe.plain < 1 else self.untimed
            own, given = [*nothing, self.eot], len(self.timed)
        elif window.enrolled:
            return self._enrolled(window)
        elif window.kind == "plain":
            heard = [id for piece in window.pieces if piece.whole for id in self.ids[piece.row]]
            own, given = [*self.untimed, *heard, self.eot], 1
        else:
            own, given = list(self.timed), 1
            most = self.recipe.most or len(window.pieces)
            for number, piece in enumerate(window.pieces[: most + 1]):
                own.append(self._time(piece.start))
                if piece.whole and number < most:
                    own += [*self.ids[piece.row], self._time(piece.start + piece.samples)]
            own.append(self.eot)
        return [*window.prompt, *own], len(window.prompt) + given

    def _enrolled(self, window):
        """As `decode.enrolled.Context.tokens` gives the phrases; the last utterance is scored."""
        timed = window.kind == "times"
        own, given = list(self.timed if timed else self.untimed), 0
        for piece in window.pieces:
            given, said = len(own), self.ids[piece.row]
            between = (self._time(piece.start), self._time(piece.start + piece.samples))
            own += [between[0], *said, between[1]] if timed else said
        return [*own, self.eot], given

    def translated(self, texts: Mapping[int, str], tokenizer) -> "Packer":
        """The same audio in other words: `texts` of rows, and a `tokenizer` that translates (`Tokenizer.into`)."""
        other = copy.copy(self)
        other.timed = tuple(tokenizer.prefix(task="translate", timestamps=True))
        other.ids = {row: tuple(tokenizer.encode(text)) for row, text in texts.items()}
        return other

    def restated(self, window: Window) -> tuple[list[int], int]:
        """As `tokens` of a window with times, drawn by the packer that this one is `translated` from. Language and task
        are given, so that nothing is learnt of which language is spoken.
        """
        prompt = ()
        if window.prompt:
            rng, said = np.random.default_rng([*window.seed, 1]), {piece.row for piece in window.pieces}
            group = rng.permutation(self.members[self.group[window.pieces[0].row]]).tolist()
            prompt = self._prompt(rng, [row for row in group if row in self.ids and row not in said], True)
        ids, _ = self.tokens(dataclasses.replace(window, prompt=prompt))
        return ids, len(prompt) + len(self.timed)

    def wave(self, window: Window) -> np.ndarray:
        """Audio of a window, float32 [window]. Without times a cut utterance is left out, as its text is."""
        recipe, rng = self.recipe, np.random.default_rng(window.seed)
        level = float(np.exp(rng.uniform(*np.log(recipe.noise_level))))
        if not window.pieces:
            # Louder than under speech, too: a hum alone is no word.
            return background(rng, self.window, KINDS[rng.integers(len(KINDS))], level * 10 ** rng.uniform(0, 1))
        out = np.zeros(self.window, np.float32)
        if rng.random() < recipe.noise:
            out += background(rng, self.window, KINDS[rng.integers(1, 4)], level)
        for piece in window.pieces:
            gain = np.float32(10 ** (recipe.gain * rng.uniform(-1, 1) / 20))
            if piece.whole or window.kind == "times":
                spoken = _played(self.audio(piece.row), window.speed)[: piece.samples]
                out[piece.start : piece.start + len(spoken)] += gain * spoken
        return np.clip(out, -1.0, 1.0)

    def __call__(self, samples: int, numbers) -> Batch:
        """The batch of these window numbers; `samples` is what the plan says, always `window`."""
        windows = [self.draw(number) for number in numbers]
        ids, given = zip(*(self.tokens(window) for window in windows), strict=True)
        waves = [self.wave(window) for window in windows]
        return assemble(waves, ids, given, samples=samples, length=self.length, eot=self.eot)


@dataclasses.dataclass(frozen=True)
class WindowPlan:
    """Batch i is the windows from i * rows on; endless. Rows are rounded up to a multiple of `multiple`."""

    window: int
    batch_size: int
    multiple: int = 1

    def __getitem__(self, number):
        rows = -(-self.batch_size // self.multiple) * self.multiple
        return self.window, np.arange(int(number) * rows, (int(number) + 1) * rows)

    def names_of(self, number):
        """What batch `number` is called in messages."""
        index = self[number][1]
        return [f"windows {index[0]} to {index[-1]}"]

    def digest(self):
        """The same for two plans that cut the same windows into the same batches."""
        return f"windows of {self.window} samples, {len(self[0][1])} a batch"


def _seconds(rng, low_high) -> int:
    """Samples of a time drawn from a range in seconds."""
    return round(rng.uniform(*low_high) * SAMPLE_RATE)


def _played(wave_S, speed):
    """The waveform at another speed, by linear interpolation: pitch and tempo change together (Ko et al. 2015)."""
    if speed == 1:
        return wave_S
    at = np.arange(max(1, int(len(wave_S) / speed)), dtype=np.float32) * np.float32(speed)
    return np.interp(at, np.arange(len(wave_S), dtype=np.float32), wave_S).astype(np.float32)
