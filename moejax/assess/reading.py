"""Hears the scored utterances under every condition; what was heard is kept on disk and not heard twice."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from moejax.assess.plan import TEXTS, Condition, Plan
from moejax.data.manifest import Utterance
from moejax.decode.enrolled import Context, front
from moejax.recognizer import Recognizer
from moejax.runtime import files
from moejax.text.sentence import sentence

Told = Callable[[int, int], None]  # utterances heard, of how many


@dataclasses.dataclass(frozen=True)
class Listener:
    """One model's ears. `options`: of `Recognizer.transcribe`."""

    recognizer: Recognizer
    options: dict

    def wave(self, utterance: Utterance) -> np.ndarray:
        """Samples [S] at 16 kHz."""
        if isinstance(utterance.audio, str):
            return self.recognizer.read(utterance.audio)
        samples, rate = utterance.audio()
        return self.recognizer.read(samples, rate)

    def context(self, own: list[Utterance]) -> Context | None:
        """Those of the phrases that the window holds, joined."""
        return front([self.wave(one) for one in own], [sentence(one.text) for one in own], len(own))

    def hear(self, plan: Plan, condition: Condition, told: Told) -> dict[str, str]:
        """Text of every scored utterance, by id."""
        if condition.control == TEXTS:
            return self._prompted(plan, condition, told)
        contexts: dict[str, Context | None] = {speaker: None for speaker in plan.phrases}
        if condition.count:
            contexts = {speaker: self.context(plan.enrolled(speaker, condition)) for speaker in plan.phrases}
        fronts = [contexts[utterance.speaker] for utterance in plan.scored]
        return self._texts(plan.scored, told, 0, len(plan.scored), contexts=fronts)

    def _prompted(self, plan, condition, told):
        found = {}
        for speaker in plan.phrases:
            mine = [utterance for utterance in plan.scored if utterance.speaker == speaker]
            said = " ".join(sentence(one.text) for one in plan.enrolled(speaker, condition))
            found |= self._texts(mine, told, len(found), len(plan.scored), initial_prompt=said)
        return found

    def _texts(self, utterances, told, done, of, **more):
        waves, found = (self.wave(utterance) for utterance in utterances), {}
        for place, transcript in self.recognizer.stream(waves, **self.options, **more):
            found[utterances[place].id] = transcript.text.strip()
            told(done + len(found), of)
        return found


def kept(folder: Path | None, key: dict, hear: Callable[[], dict[str, str]]) -> dict[str, str]:
    """What `hear` gives, from `folder` where the same `key` was heard before; the file names what it is of."""
    if folder is None:
        return hear()
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{digest}.json"
    if path.is_file():
        return files.read_json(path)["texts"]
    texts = hear()
    files.write_json(path, {**key, "texts": texts})
    return texts
