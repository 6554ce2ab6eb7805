"""The models of a server: loaded and warmed up at its start; systems and personal adapters of them when asked for."""

import collections
import contextlib
import dataclasses
import logging
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from moejax import loading
from moejax.audio.constants import SAMPLE_RATE
from moejax.decode.enrolled import Context, fitting
from moejax.enrolment import profiles
from moejax.errors import BadValue, Refused, Remark, UnknownName
from moejax.recognizer import Recognizer
from moejax.serve.declined import Declined, field
from moejax.systems import registry
from moejax.tasks.routes import Mixture
from moejax.work.folder import Work

log = logging.getLogger(__name__)
FIRST = "whisper-1"  # what OpenAI's clients call it: the first model
KEPT = 4  # systems and adapters beside the models of the start that stay in memory
WARM = {"temperature": 0.0, "guards": "none"}


@dataclasses.dataclass(frozen=True)
class Which:
    """A recogniser, by what it is made of; `adapter` is a folder, `route` logits in place of the gate's."""

    model: str
    system: str | None = None
    adapter: tuple[str, float] | None = None  # with the time of its profile: enrolled again, it is another
    route: tuple[float, ...] | None = None
    translates: bool = False  # of a workdir, whose default system for that may be another


def named(arguments: Sequence[str], option: str = "--model") -> dict[str, str]:
    """{name: path or name of a published model} of arguments MODEL and NAME=MODEL.

    A folder is called by its last part, so that no answer tells where things lie. Errors: BadValue for a name twice.
    """
    found: dict[str, str] = {}
    for argument in arguments:
        name, equals, model = argument.partition("=")
        if not equals or "/" in name:
            model = argument
            name = Path(argument).expanduser().resolve().name if Path(argument).expanduser().exists() else argument
        if not name or not model:
            raise BadValue(f"{option} {argument!r}: give MODEL, or NAME=MODEL")
        if name in found or name == FIRST:
            raise BadValue(f"{option} {argument}: there is a model {name!r} already; give another name, NAME=MODEL")
        found[name] = model
    return found


class Models:
    """What is loaded; safe to use from any thread."""

    def __init__(self, wanted: dict[str, str], *, weights: str = "", say: Callable[[str], None] | None = None):
        """Loads `wanted`, {name: path}; `say` is told each remark. Errors: as `loading.load`."""
        self.wanted, self.weights = dict(wanted), weights
        self.loaded_at = int(time.time())
        self._lock = threading.RLock()
        self._others: collections.OrderedDict[Which, Recognizer] = collections.OrderedDict()
        self._voices: collections.OrderedDict[tuple, tuple] = collections.OrderedDict()
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", Remark)
            self._loaded = {name: loading.load(path, weights=weights) for name, path in self.wanted.items()}
        for remark in remarks:
            if say is not None:
                say(str(remark.message))

    @property
    def names(self) -> list[str]:
        """Of the models, in the order of the command line."""
        return list(self.wanted)

    def name(self, asked: str) -> str:
        """Which model is meant. Errors: Declined (404) with those that there are."""
        if asked == FIRST:
            return self.names[0]
        if asked not in self.wanted:
            raise Declined(404, "model_not_found", f"no model {asked!r}; there are: {', '.join(self.names)}", "model")
        return asked

    def workdir(self, name: str) -> Path | None:
        """Where a model that is a workdir lies."""
        return Path(self.wanted[name]).expanduser() if self._is_workdir(name) else None

    def systems(self, name: str) -> tuple[str, ...]:
        """Of a workdir, the rows of its table that can be read with; of another model none."""
        place = self.workdir(name)
        known = {} if place is None else registry.known(Work(place, quiet=True))
        return tuple(system.name for system in known.values() if system.role != "control" and not system.answers)

    def learnt(self, name: str, system: str | None = None) -> tuple[str, ...]:
        """Languages that a workdir's systems, or one of them, learnt to write."""
        place = self.workdir(name)
        known = {} if place is None else registry.known(Work(place, quiet=True))
        there = [one for one in known.values() if system in (None, one.name) and not one.answers]
        found = [target for one in there for target in one.writes]
        return tuple(dict.fromkeys(found))

    def targets(self, name: str, system: str | None = None) -> tuple[str, ...]:
        """Languages that a model can translate into, nothing loaded: what its systems learnt, or English."""
        if found := self.learnt(name, system):
            return found
        try:
            self._loaded[name].check(task="translate")
        except Refused:
            return ()
        return ("en",)

    def which(self, name: str, *, system: str | None, route: tuple[float, ...] | None, task: str) -> Which:
        """The recogniser of a request, which is then there. Errors: Declined for a system or a route that is none."""
        translates = system is None and task == "translate" and self._is_workdir(name)
        found = Which(name, system, translates=translates)
        try:
            recognizer = self.get(found)
        except UnknownName as error:
            raise Declined(400, "unknown_system", str(error), "system") from error
        except Refused as error:  # it says where the workdir lies, which is nobody's business
            log.warning("%s: %s", name, error)
            message = f"system {system!r} of model {name!r} cannot be opened; the server's log says why"
            raise Declined(400, "unknown_system", message, "system") from error
        if route is not None:
            mixture = recognizer.network.mixture
            if recognizer.network.route != "gate" or not isinstance(mixture, Mixture):
                raise Declined(400, "invalid_value", f"model {name!r} has no gate to give a route to", "route")
            if len(route) != mixture.num_experts:
                message = f"route has {len(route)} numbers; this mixture has {mixture.num_experts} experts"
                raise Declined(400, "invalid_value", message, "route")
            found = dataclasses.replace(found, route=route)
        return found

    def get(self, which: Which) -> Recognizer:
        """Its recogniser, loaded if it is not there. Errors: as `loading.load`."""
        if which.route is not None:
            base = self.get(dataclasses.replace(which, route=None))
            return base.on_route(np.asarray(which.route, np.float32))
        if which == Which(which.model):
            return self._loaded[which.model]
        with self._lock:
            if which in self._others:
                self._others.move_to_end(which)
                return self._others[which]
            found = loading.load(
                self.wanted[which.model],
                system=which.system,
                weights=self.weights,
                adapters=() if which.adapter is None else (which.adapter[0],),
                task="translate" if which.translates else "transcribe",
            )
            self._others[which] = found
            if len(self._others) > KEPT:
                self._others.popitem(last=False)
            return found

    def voice(self, which: Which, speaker: str) -> tuple[Which, Context | None]:
        """The recogniser with a speaker of `moejax enroll`: what `moejax personalize` chose, if it was for this model,
        and the phrases that stand in front of every window.

        Errors: Declined, which names nobody else and no place of this machine.
        """
        with self._lock, field("speaker", "unknown_speaker"):
            try:
                profile, written = self._profile(speaker)
            except UnknownName as error:
                raise BadValue(f"no speaker {speaker!r} is enrolled here") from error
            except (Refused, OSError) as error:
                if profiles.NAME.fullmatch(speaker) is None:
                    raise
                raise BadValue(f"what is kept of speaker {speaker!r} is damaged; enroll again") from error
        recognizer = self.get(which)
        chosen = profile.personal
        if chosen and chosen["base"] != profiles.digest_of(recognizer.params):
            chosen = None  # learnt by another model: this one is given the phrases alone
        plain = which == Which(which.model) and not self._is_workdir(which.model)
        if chosen and profile.adapter is not None and plain:
            which = dataclasses.replace(which, adapter=(str(profile.adapter), written))
            self.get(which)
        if chosen and not chosen["context"]:
            return which, None
        places = fitting(profile.waves)
        if not places:
            return which, None
        with field("speaker"):
            waves, texts = [profile.waves[i] for i in places], [profile.texts[i] for i in places]
            return which, recognizer.enroll(waves, texts).context

    def _is_workdir(self, name: str) -> bool:
        return (Path(self.wanted[name]).expanduser() / "base" / "model.json").is_file()

    def _profile(self, speaker: str) -> tuple[profiles.Profile, float]:
        """A profile, and when it was written; the last ones stay in memory."""
        path = profiles.place(speaker) / "profile.json"
        written = path.stat().st_mtime if path.is_file() else 0.0
        key = (speaker, written)
        if key not in self._voices:
            self._voices[key] = (profiles.load(speaker), written)
            if len(self._voices) > 8 * KEPT:
                self._voices.popitem(last=False)
        return self._voices[key]

    def warm_up(self, batch_size: int) -> None:
        """Compiles what most requests need: every size of a batch, times of words, what follows a doubtful window."""
        rng = np.random.default_rng(0)
        for recognizer in self._loaded.values():
            sound_S = rng.uniform(-0.1, 0.1, SAMPLE_RATE).astype(np.float32)
            sizes = [size for size in (2**power for power in range(16)) if size <= batch_size]
            asked: list[tuple[int, dict]] = [(size, {"batch_size": batch_size}) for size in sizes]
            for size, more in [*asked, (1, {"word_timestamps": True}), (1, {"temperature": 0.4})]:
                with contextlib.suppress(Refused):  # nothing is wrong with a model that cannot do one of these
                    recognizer.transcribe([sound_S] * size, **{**WARM, **more})
