"""Which systems there are: every look-up of a name goes through here. A new baseline is one more entry in `KINDS`."""

from collections.abc import Iterable

from moejax.errors import BadValue, UnknownName
from moejax.systems import adapters, base, controls, emotion, hypernetworks, mixture, salmonn, strength, translating
from moejax.systems.system import Kind, Opened, System
from moejax.work.context import Context
from moejax.work.folder import Work

# In the order of the table
KINDS: list[Kind] = [
    base.KIND,
    adapters.KIND,
    hypernetworks.KIND,
    mixture.KIND_FROZEN,
    mixture.KIND,
    translating.KIND,
    emotion.KIND,
    salmonn.KIND,
    controls.KIND,
]


def known(work: Work) -> dict[str, System]:
    """{name: System, not opened} of all that this workdir can decode, in the order of the table."""
    return {name: system for name, (_, system) in _found(work).items()}


def find(work: Work, name: str) -> System:
    """The record of one system, not opened. Errors: UnknownName for one that was not trained."""
    return _entry(work, name)[1]


def open_system(context: Context, name: str) -> Opened:
    """Loads one system, in the context of its own stages, at `evaluate.strength`; one that translates in full, as the
    base to which it would be drawn back cannot. Errors: as `find`.
    """
    kind, system = _entry(context.work, name)
    opened, share = kind.open(context, system), context.cfg.evaluate.strength
    return opened if share == 1 or system.writes else strength.at(opened, share, context.base.params)


def _found(work: Work) -> dict[str, tuple[Kind, System]]:
    return {system.name: (kind, system) for kind in KINDS for system in kind.known(work)}


def _entry(work: Work, name: str) -> tuple[Kind, System]:
    there = _found(work)
    if name not in there:
        raise UnknownName(f"no system {name!r} in this workdir; it has {', '.join(there)}")
    return there[name]


def best(work: Work, task: str = "transcribe") -> System:
    """The best trained system there is: the last mixture, else the base; to translate the last that learnt to, if any
    did.
    """
    there = [system for system in known(work).values() if not system.answers]
    if task == "translate" and (learnt := [system for system in there if system.writes]):
        return learnt[-1]
    return next((system for system in reversed(there) if system.role == "mixture" and not system.writes), there[0])


def named(name: str, path: str = "") -> Kind:
    """The kind that a name belongs to, before anything was trained: those of cohorts and speakers are known to the
    corpus alone, by how they begin. Errors: BadValue (of the config key `path`) for a name that nobody has.
    """
    fixed = [known for kind in KINDS for known in kind.names]
    for kind in KINDS:
        if name in kind.names or (name not in fixed and name.startswith(kind.prefixes)):
            return kind
    groups = [f"{start}<cohort or speaker>" for kind in KINDS for start in kind.prefixes]
    where = f"config key {path!r} has {name!r}" if path else f"no system {name!r}"
    raise BadValue(f"{where}; known: {', '.join((*fixed, *groups))}")


def asked(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """{config key: entries, each once} that have these systems trained; systems of stages that always train are in
    none.
    """
    found: dict[str, dict[str, None]] = {}
    for name in names:
        if (wanted := named(name).asked(name)) is not None:
            found.setdefault(wanted[0], {})[wanted[1]] = None
    return {key: tuple(entries) for key, entries in found.items()}
