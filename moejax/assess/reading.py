"""Hears the scored utterances under every condition; what was heard is kept on disk and not heard twice."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from moejax.assess.plan import LORA, ROUTE, TEXTS, Condition, Plan
from moejax.data.manifest import Utterance
from moejax.decode.enrolled import Context, front
from moejax.personal import lora, route
from moejax.personal.material import Material, Recording
from moejax.recognizer import Recognizer
from moejax.runtime import files
from moejax.text.sentence import sentence


@dataclasses.dataclass(frozen=True)
class Said:
    """What is heard of one utterance, and in which language; "" where an older file does not say."""

    text: str
    language: str = ""


Told = Callable[[int, int], None]  # utterances heard, of how many
RANK = 4  # of a LoRA that is learnt from a speaker's phrases: the smaller one of moejax personalize
TOGETHER = 8  # speakers whose LoRAs are learnt at a time


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

    def hear(self, plan: Plan, condition: Condition, told: Told) -> dict[str, Said]:
        """What is heard of every scored utterance, by id."""
        if condition.control == TEXTS:
            return self._prompted(plan, condition, told)
        contexts: dict[str, Context | None] = {speaker: None for speaker in plan.phrases}
        if condition.in_front:
            contexts = {speaker: self.context(plan.enrolled(speaker, condition)) for speaker in plan.phrases}
        if condition.learns:
            return self._learnt(plan, condition, contexts, told)
        fronts = [contexts[utterance.speaker] for utterance in plan.scored]
        return self._texts(self.recognizer, plan.scored, told, 0, len(plan.scored), contexts=fronts)

    def can(self, condition: Condition) -> bool:
        """Whether this model is read so: a route is a mixture's, a LoRA is learnt on one network for everybody."""
        if condition.count and condition.learns == ROUTE:
            return route.can(self.recognizer)
        if condition.count and condition.learns == LORA:
            return lora.can(self.recognizer)
        return True

    def _learnt(self, plan, condition, contexts, told):
        """Each speaker by what was fitted on his phrases."""
        found: dict[str, Said] = {}
        for own, reader in self._readers(plan, condition):
            mine = [utterance for utterance in plan.scored if utterance.speaker == own]
            fronts = [contexts[own]] * len(mine)
            found |= self._texts(reader, mine, told, len(found), len(plan.scored), contexts=fronts)
        return found

    def _readers(self, plan, condition):
        """(speaker, his recogniser); LoRAs of some speakers are trained at a time, as one program."""
        language = self.options.get("language") or self.recognizer.language or "en"
        speakers, base = list(plan.phrases), self.recognizer
        if condition.learns == LORA:
            base = lora.plain(base)
        for start in range(0, len(speakers), TOGETHER):
            group = speakers[start : start + TOGETHER]
            phrases = [
                [Recording(self.wave(one), sentence(one.text)) for one in plan.enrolled(speaker, condition)]
                for speaker in group
            ]
            if condition.learns == ROUTE:
                for speaker, own in zip(group, phrases, strict=True):
                    yield speaker, route.fit(base, own, language)
                continue
            ends = np.cumsum([len(own) for own in phrases])
            members = [range(end - len(own), end) for end, own in zip(ends, phrases, strict=True)]
            material = Material(base, [one for own in phrases for one in own], language)
            steps = lora.steps_for(condition.count)
            adapters = lora.train(base, material, [list(own) for own in members], rank=RANK, steps=steps)
            for speaker, adapter in zip(group, adapters, strict=True):
                yield speaker, lora.with_adapter(base, adapter)

    def _prompted(self, plan, condition, told):
        found = {}
        for speaker in plan.phrases:
            mine = [utterance for utterance in plan.scored if utterance.speaker == speaker]
            said = " ".join(sentence(one.text) for one in plan.enrolled(speaker, condition))
            found |= self._texts(self.recognizer, mine, told, len(found), len(plan.scored), initial_prompt=said)
        return found

    def _texts(self, reader, utterances, told, done, of, **more):
        waves, found = (self.wave(utterance) for utterance in utterances), {}
        for place, transcript in reader.stream(waves, **self.options, **more):
            found[utterances[place].id] = Said(transcript.text.strip(), transcript.language)
            told(done + len(found), of)
        return found


def kept(folder: Path | None, key: dict, hear: Callable[[], dict[str, Said]]) -> dict[str, Said]:
    """What `hear` gives, from `folder` where the same `key` was heard before; the file names what it is of."""
    if folder is None:
        return hear()
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{digest}.json"
    if path.is_file():
        kept = files.read_json(path)
        return {name: Said(text, kept.get("languages", {}).get(name, "")) for name, text in kept["texts"].items()}
    heard = hear()
    texts, languages = ({k: getattr(said, part) for k, said in heard.items()} for part in ("text", "language"))
    files.write_json(path, {**key, "texts": texts, "languages": languages})
    return heard
