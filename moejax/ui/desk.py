"""What a page does: reads recordings, compares, enrolls. Plain functions over `serve.service`; gives HTML.

Whatever goes wrong is one sentence of it.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.decode.enrolled import fitting
from moejax.diarize import listening
from moejax.diarize.said import attributed
from moejax.enrolment import profiles
from moejax.errors import BadValue, Refused
from moejax.serve import recordings
from moejax.serve.service import Service
from moejax.text import languages
from moejax.text.sentence import sentence
from moejax.text.transcript import Transcript
from moejax.ui import answers, differences, marks
from moejax.ui.marks import Sound
from moejax.ui.sounds import Sounds

log = logging.getLogger(__name__)
PHRASE_SECONDS = (0.3, 20.0)  # as of `moejax enroll`
PHRASES = 20  # that a page keeps of one speaker
MEGABYTE = 1 << 20
Labelled = list[tuple[str, str]]  # (what a person reads, value)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is asked of a recording; "" leaves it to the model. `target`: a language to translate into."""

    model: str
    system: str = ""
    language: str = ""
    target: str = ""
    speaker: str = ""
    talkers: str = ""  # how many speak, which is then looked for: "0" for as many as are found

    @property
    def name(self) -> str:
        """For a person."""
        parts = [self.model, self.system, f"speaker {self.speaker}" if self.speaker else ""]
        return ", ".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True)
class Phrase:
    """Something that a speaker said, float32 [S] at 16 kHz, and its text."""

    wave_S: np.ndarray
    text: str

    @property
    def seconds(self) -> float:
        return len(self.wave_S) / SAMPLE_RATE


class Desk:
    """Safe to use from any thread. `private`: whoever sees it may know who is enrolled on this machine."""

    def __init__(
        self, service: Service, sounds: Sounds, *, private: bool = True, diarizer: listening.Diarizer | None = None
    ):
        self.service, self.sounds, self.private, self.diarizer = service, sounds, private, diarizer
        self._listening = concurrent.futures.ThreadPoolExecutor(1, "moejax-diarize")  # starts when it is asked
        self.models = service.models
        self._saving = threading.Lock()

    # What there is to choose

    def systems(self, model: str) -> Labelled:
        """Of a workdir its systems, the best one first; of another model the one that it is."""
        found = self.models.systems(model)
        return [("the best" if found else "as published", ""), *((name, name) for name in found)]

    def tasks(self, model: str, system: str = "") -> Labelled:
        """To write what is said, and each language that can be translated into."""
        found = self.models.targets(model, system or None)
        names = [(f"translate into {languages.NAMES.get(code, code).title()}", code) for code in found]
        return [("transcribe", ""), *names]

    def languages(self, model: str) -> Labelled:
        """That this model knows."""
        recognizer = self.models.get(self.models.which(model, system=None, route=None, task="transcribe"))
        codes = recognizer.tokenizer.languages if recognizer.tokenizer.is_multilingual else ("en",)
        names = sorted((languages.NAMES.get(code, code).title(), code) for code in codes)
        return [("by itself", ""), *names] if len(names) > 1 else [(names[0][0], "")]

    def speakers(self, also: Sequence[str] = ()) -> Labelled:
        """Who is enrolled here; where the page is not private only who was enrolled on it (`also`)."""
        names = profiles.names() if self.private else sorted(set(also) & set(profiles.names()))
        return [("anybody", ""), *((name, name) for name in names)]

    def talkers(self) -> Labelled:
        """How many may be told apart; nothing where there is no diarizer."""
        if self.diarizer is None:
            return []
        counts = [(str(count), str(count)) for count in range(1, self.diarizer.sizes.most + 1)]
        return [("any", "0"), *counts, ("do not ask", "")]

    def report(self, model: str) -> Path | None:
        """The report.html of a workdir."""
        place = self.models.workdir(model)
        path = None if place is None else place / "report" / "report.html"
        return path if path is not None and path.is_file() else None

    # What is done

    def read(self, path: str | None, choice: Choice) -> Iterator[str]:
        """HTML again and again while the text grows, at last the answer, or the sentence that says why not."""
        try:
            recording = self.heard(path)
            yield marks.growing("")
            job = _Read(self.service, recording.wave_S, choice)
            with job.unless_left(), self._who_speaks(recording.wave_S, choice) as found:
                for text in job.texts():
                    yield marks.growing(text)
                transcript, turns = job.answer(), None if found is None else found.result()
            notes = [*recording.flaws]
            if turns is not None:
                try:
                    transcript = attributed(transcript, turns)
                except BadValue:
                    notes.append("This model does not say when a word is said, so nobody knows who said it.")
            sound, name = self.sound(recording), _stem(path)
            yield answers.answer(transcript, sound, name=name, notes=notes, title=choice.name, turns=turns)
        except Exception as error:
            yield marks.refusal(reason(error))

    @contextlib.contextmanager
    def _who_speaks(self, wave_S: np.ndarray, choice: Choice) -> Iterator[concurrent.futures.Future | None]:
        """Turns to be, looked for beside the text; whoever leaves is not waited for. None where it was not asked."""
        if self.diarizer is None or not choice.talkers:
            yield None
            return
        found = self._listening.submit(self.diarizer, wave_S, int(choice.talkers))
        try:
            yield found
        finally:
            found.cancel()

    def compare(self, path: str | None, first: Choice, second: Choice) -> Iterator[str]:
        """The same of two models or systems, and where they differ."""
        try:
            if first == second:
                raise BadValue("both are the same; choose another model, system or speaker to compare with")
            recording = self.heard(path)
            yield marks.growing("")
            jobs = [_Read(self.service, recording.wave_S, choice) for choice in (first, second)]
            with jobs[0].unless_left(), jobs[1].unless_left():
                found = [job.answer() for job in jobs]
            sound, name = self.sound(recording), _stem(path)
            parts = [differences.compared(found[0], found[1], (first.name, second.name))]
            for choice, transcript in zip((first, second), found, strict=True):
                file = f"{name}-{choice.system or choice.model}"
                parts.append(answers.answer(transcript, sound, name=file, title=choice.name))
            yield "".join(parts)
        except Exception as error:
            yield marks.refusal(reason(error))

    def phrase(self, path: str | None, text: str, before: Sequence[Phrase]) -> tuple[list[Phrase], str]:
        """One more phrase of a speaker: (all of them, HTML that says so or why not)."""
        try:
            if len(before) >= PHRASES:
                raise BadValue(f"{PHRASES} phrases are enough; keep the voice, or begin anew")
            if not text.strip():
                raise BadValue("write down what is said in the recording; the model needs both")
            wave_S, (least, most) = self.heard(path).wave_S, PHRASE_SECONDS
            if not least <= len(wave_S) / SAMPLE_RATE <= most:
                seconds = len(wave_S) / SAMPLE_RATE
                raise BadValue(f"the phrase has {seconds:.1f} s; between {least:g} and {most:g}, two to six are good")
            found = [*before, Phrase(wave_S, text.strip())]
            return found, phrases(found)
        except Exception as error:
            return list(before), marks.refusal(reason(error)) + phrases(before)

    def enroll(self, name: str, spoken: Sequence[Phrase], replace: bool) -> tuple[bool, str]:
        """Keeps a voice as `moejax enroll` does: (whether it is kept now, HTML)."""
        try:
            name = name.strip()
            if not name:
                raise BadValue("give the voice a name")
            profiles.place(name)
            if not spoken:
                raise BadValue("add a phrase first: a recording of two to six seconds with its text, three are better")
            used = fitting([phrase.wave_S for phrase in spoken])
            if not used:
                raise BadValue("no phrase is short enough for a window; two to six seconds are good")
            with self._saving:
                if name in profiles.names() and not (replace and self.private):
                    hint = "; tick 'replace', or" if self.private else ";"
                    raise BadValue(f"there is a voice {name!r} already{hint} give another name")
                waves, texts = [one.wave_S for one in spoken], [one.text for one in spoken]
                profiles.save(name, waves, texts, replace=replace and self.private)
            count = f"{len(used)} of {len(spoken)} phrases"
            return True, marks.told(f"{name} is enrolled by {count}; choose the voice beside the model.")
        except Exception as error:
            return False, marks.refusal(reason(error))

    def heard(self, path: str | None, seconds: float | None = None) -> recordings.Recording:
        """The recording of a file that the page has taken, of at most `seconds`, the service's own unless given.

        Errors: Refused in one sentence.
        """
        limits = self.service.limits
        if not path:
            raise BadValue("there is no recording yet: choose a file, or record one")
        size = Path(path).stat().st_size
        if not size:
            raise BadValue("the file is empty")
        if size > limits.megabytes * MEGABYTE:
            raise BadValue(f"the file is larger than {limits.megabytes:g} MB, the most here")
        with open(path, "rb") as stream:
            found = recordings.heard(stream, limits.seconds if seconds is None else min(seconds, limits.seconds))
        if not len(found.wave_S):
            raise BadValue("nothing can be heard in this recording: it is silent")
        return found

    def sound(self, recording: recordings.Recording) -> Sound:
        """As the page plays it."""
        return Sound(f"/sounds/{self.sounds.keep(recording.wave_S)}", recording.wave_S, recording.seconds)


class _Read:
    """A recording in the queue. Words get times."""

    def __init__(self, service: Service, wave_S: np.ndarray, choice: Choice):
        options: dict[str, Any] = {"language": choice.language} if choice.language else {}
        if choice.target:
            options["task"] = "translate"
            learnt = service.models.learnt(choice.model, choice.system or None)
            options |= {"target": choice.target} if choice.target in learnt else {}
        chosen = {"system": choice.system or None, "speaker": choice.speaker or None}
        wanted = service.want(choice.model, **chosen, **options, word_timestamps=True)
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.job = service.submit(wave_S, wanted, self._said.put)
        self.job.answer.add_done_callback(lambda _: self._said.put(None))

    def texts(self) -> Iterator[str]:
        """The text so far, until all of it is there."""
        while (text := self._said.get()) is not None:
            yield text

    def answer(self) -> Transcript:
        return self.job.answer.result()

    @contextlib.contextmanager
    def unless_left(self) -> Iterator[None]:
        """Whoever closes the page takes the recording out of the queue."""
        try:
            yield
        finally:
            self.job.answer.cancel()  # without effect where it is being read, or done


def phrases(spoken: Sequence[Phrase]) -> str:
    """HTML of what is there to enroll."""
    rows = "".join(f"<li>{marks.escaped(sentence(one.text))} <i>{one.seconds:.1f} s</i></li>" for one in spoken)
    return f'<ol class="mj-phrases">{rows}</ol>' if rows else '<p class="mj-note">No phrase yet.</p>'


def _stem(path: str | None) -> str:
    """What files of a recording are called."""
    return Path(path or "").stem or "recording"


def reason(error: Exception) -> str:
    """What a person is told; of a bug no more than that there is one."""
    if isinstance(error, Refused):
        text = " ".join(str(error).split())
        return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
    log.error("a page's request failed", exc_info=error)
    return "This failed by a fault of ours; the log says more."
