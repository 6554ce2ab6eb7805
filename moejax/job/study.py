"""Many runs of one config: training seeds, ablations, one cohort held out at a time, learning rates chosen on dev.

Each run is a workdir of its own below W/variants/, in which every stage that W, or an earlier run, has finished for the
same inputs is taken over (`job/graph.py`) and the rest is run: seeds share the base and the clusters, an ablation of
the joint stage shares the experts too, and all share what the frozen encoder made of what it heard (W/states). So a
killed study goes on where it was by the same command, and each run can be loaded like any workdir. The config as it
is with the first seed is W itself.

    W/variants/<variant>/seed<n>     `main` is the config as it is, `without_<cohort>` holds that cohort out
    W/variants/tune/<system>/<key=value>
    W/study.json                     which runs belong together, and what was tried; the report reads it
"""

import dataclasses
import itertools
import re
import time
from collections.abc import Iterable
from pathlib import Path

from moejax.errors import BadValue
from moejax.job import config as configs
from moejax.job import graph
from moejax.report import load
from moejax.report.study import FILE, MAIN
from moejax.runtime.files import read_json, write_json
from moejax.systems import controls, mixture, registry
from moejax.systems.system import System
from moejax.training import adapters
from moejax.types import Config
from moejax.work.folder import VARIANTS, Work, digest, flatten, nest
from moejax.work.normalizer import normalizer


@dataclasses.dataclass(frozen=True)
class Run:
    """One workdir of the study."""

    variant: str
    seed: int
    config: Config
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"


def study(
    config: str | Path | Config,
    workdir: str | Path,
    *,
    seeds: int = 1,
    variants: str | Iterable[str] = (),
    heldout: bool = False,
    quiet: bool = False,
) -> Work:
    """What `moejax all` does: the config with so many training seeds, its `variants` (names, or "all"), and with
    `heldout` each cohort held out in turn; then the report over all of them.

    Errors: a variant that does not exist, or whose keys do not, before anything is run.
    """
    config = configs.load(config) if isinstance(config, str | Path) else configs.resolve(config)
    if seeds < 1:
        raise BadValue(f"seeds is {seeds}; at least 1 is needed")
    names = chosen_variants(config, variants)
    for name in names:
        varied(config, name)
    work = Work(workdir, quiet)
    plain = seeds == 1 and not names and not heldout
    config, tried = tuned(config, work)
    graph.run(config, workdir, quiet=quiet, donors=_folders(work))
    if plain and not tried:
        return work
    runs = [Run(MAIN, 0, config, work.root)]
    runs += [Run(MAIN, n, _seeded(config, n, _kept(config, work)), _place(work, MAIN, n)) for n in range(1, seeds)]
    names = [(name, varied(config, name)) for name in names]
    folds = _holding_out(config, work) if heldout else []
    names += folds
    runs += [
        Run(name, n, _seeded(changed, n, {}), _place(work, name, n)) for name, changed in names for n in range(seeds)
    ]
    perform(runs, work, quiet)
    changes = {name: _changes(config, changed) for name, changed in names}
    listing = [{"variant": r.variant, "seed": r.seed, "folder": str(r.folder.relative_to(work.root))} for r in runs]
    made = {"digest": digest(runs[0].config.to_dict()), "runs": listing, "heldout": [name for name, _ in folds]}
    write_json(work.path(FILE), made | {"changes": changes, "tune": tried})
    work.path("report", "done.json").unlink(missing_ok=True)  # it now has more to say
    graph.run(config, workdir, "report", quiet=quiet)
    return work


def perform(runs: list[Run], work: Work, quiet: bool) -> None:
    """Runs all but the first (W itself, which has run), each with what the runs before it can give."""
    donors, spent = [runs[0].folder], []
    for number, one in enumerate(runs[1:], 2):
        left = f", about {_minutes(sum(spent) / len(spent) * (len(runs) - number + 1))} left" if spent else ""
        work.log(f"[run {number} of {len(runs)}] {one.name}{left}")
        start = time.perf_counter()
        graph.run(one.config, one.folder, "evaluate", quiet=quiet, donors=donors)
        spent.append(time.perf_counter() - start)
        donors.append(one.folder)


def chosen_variants(config: Config, asked: str | Iterable[str]) -> list[str]:
    """Names of config.variants: all, a comma list or a sequence. Errors: one that is not there."""
    known = list(config.variants.keys())
    names = asked.split(",") if isinstance(asked, str) else list(asked)
    if names == ["all"]:
        if not known:
            raise BadValue("--variants all: the config has no section variants")
        return known
    for name in names:
        if name not in known:
            raise BadValue(f"no variant {name!r} in the config; it has {', '.join(known) or 'none'}")
    return names


def varied(config: Config, name: str) -> Config:
    """The config of a variant. Errors: a key that does not exist, a name that is no folder's or is taken."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or name in (MAIN, "tune"):
        raise BadValue(f"variant {name!r}: a name is letters, digits, _ . -, and none of {MAIN}, tune")
    values = config.variants[name].to_dict()
    return _derived(config, config.study.systems, values)


def _derived(config, systems, values: dict):
    """The config with `values` on top, which trains and decodes these systems alone unless `values` says which."""
    systems = tuple(systems)
    changed = configs.changed(config, {"variants": {}, "tune": {}})
    if "evaluate" not in values or "systems" not in values["evaluate"]:
        changed = configs.changed(changed, {"evaluate": {"systems": systems}})
    asked = registry.asked(systems)
    if "adapters" not in values or "kinds" not in values["adapters"]:
        kinds = {*asked.get("adapters.kinds", ()), *(_before(config, systems))}
        changed = configs.changed(changed, {"adapters": {"kinds": tuple(sorted(kinds))}})
    for section, key in (("hyper", "systems"), ("st", "kinds"), ("salmonn", "systems")):
        wanted = set(asked.get(f"{section}.{key}", ())) & set(config[section][key])
        changed = configs.changed(changed, {section: {key: tuple(sorted(wanted))}})
    if not (changed.st.kinds or changed.salmonn.systems):
        changed = configs.changed(changed, {"st": {"targets": ""}})
    changed = configs.changed(changed, values)
    configs.check(changed)
    return changed


def _before(config, systems) -> set[str]:
    """Kinds of adapters that systems of the stage st begin as, where the config trains them."""
    return {"lora_total"} & set(config.adapters.kinds) if "lora_st" in systems else set()


def _seeded(config, n: int, values: dict):
    return configs.changed(config, {"train_seed": config.train_seed + n, "variants": {}, "tune": {}, **values})


def _kept(config, work: Work) -> dict:
    """What a seed after the first trains and decodes: all but the base, which no seed changes, and the kinds of
    adapters that study.kinds does not name.
    """
    again = {*config.study.kinds, *_before(config, config.st.kinds)}
    kinds = tuple(kind for kind in config.adapters.kinds if kind in again)
    decoded = read_json(work.path("evaluate", "systems.json"))
    systems = tuple(
        name
        for name, system in registry.known(work).items()
        if system.role != "base" and name in decoded and _trained_again(system, kinds)
    )
    return {"adapters": {"kinds": kinds}, "evaluate": {"systems": systems}}


def _holding_out(config, work: Work) -> list[tuple]:
    """(name, config) for each cohort that can be test alone; the cohorts that the base is selected from cannot."""
    rows = load.utterances(work).values()
    cohorts = sorted({r["cohort"] for r in rows if r["cohort"]})
    if len(cohorts) < 2:
        raise BadValue(f"no cohort can be held out: the corpus has {', '.join(cohorts) or 'none'}")
    needed = config.base.select.to_dict().get("cohort", ())
    needed = {needed} if isinstance(needed, str) else set(needed)
    found = []
    for cohort in cohorts:
        if needed and not needed - {cohort}:
            work.log(f"cohort {cohort} is not held out: the base is trained on it alone")
            continue
        data = {"split": "cohort_heldout", "split_options": {"test_cohorts": [cohort]}}
        data |= {"unseen_speakers": (), "unseen_share": 0.0}  # nobody in test is heard, and no other cohort's are there
        changed = _derived(config, config.study.heldout_systems, {"data": data})
        found.append((f"without_{load.slug(cohort)}", changed))
    return found


def tuned(config: Config, work: Work) -> tuple[Config, dict]:
    """`(config with what dev chose, {system: {"tried", "chosen"}})`; the config itself and {} without a section tune.

    Systems of the mixture come first, so that the runs of the others need not train a mixture of their own.
    """
    grids = sorted(config.tune.to_dict().items(), key=lambda item: not _of_mixture(item[0]))
    if not grids:
        return config, {}
    config = configs.changed(config, {"tune": {}})
    graph.run(config, work.root, "gate", quiet=work.quiet)
    tried, donors = {}, [work.root]
    for system, grid in grids:
        if system not in adapters.SINGLE and not _of_mixture(system):
            known = ", ".join(["moe", *adapters.SINGLE])
            raise BadValue(f"tune names {system!r}; what can be tuned: {known}")
        keys, values = zip(*flatten(grid).items(), strict=True)
        results = []
        for point in itertools.product(*values):
            label = ",".join(f"{key}={value}" for key, value in zip(keys, point, strict=True))
            nested = nest(dict(zip(keys, point, strict=True)))
            dev = _derived(config, (system,), {**nested, "evaluate": {"split": "dev", "systems": (system,)}})
            folder = work.path(VARIANTS, "tune", system, re.sub(r"[^A-Za-z0-9_.=,-]+", "_", label))
            work.log(f"[tune {system}] {label}")
            graph.run(dev, folder, "evaluate", quiet=work.quiet, donors=donors)
            donors.append(folder)
            found = load.evaluation(Work(folder), normalizer(config.report), config.report.typical)
            rows = found.of(system)
            wer = sum(r["errors"] for r in rows) / max(sum(r["words"] for r in rows), 1)
            results.append({"values": dict(zip(keys, point, strict=True)), "dev_wer": wer})
        best = min(results, key=lambda r: r["dev_wer"])
        work.log(f"[tune {system}] dev chose {best['values']}")
        tried[system] = {"tried": results, "chosen": best["values"]}
        config = configs.changed(config, nest(best["values"]))
    return config, tried


def _trained_again(system: System, kinds) -> bool:
    return system.stage != "adapters" or (system.asked is not None and system.asked[1] in kinds)


def _of_mixture(system: str) -> bool:
    """Whether the stages experts and joint train what is tuned."""
    return system in (*mixture.KIND_FROZEN.names, *mixture.KIND.names, *controls.KIND.names)


def _changes(config, changed) -> dict:
    """{key: value} of what a variant changes, without what it decodes."""
    ours, theirs = (flatten(c.to_dict()) for c in (config, changed))
    hidden = ("variants", "tune", "evaluate.systems", "adapters.kinds")
    return {k: v for k, v in theirs.items() if ours.get(k) != v and not k.startswith(hidden)}


def _place(work: Work, variant: str, seed: int) -> Path:
    return work.path(VARIANTS, variant, f"seed{seed}")


def _folders(work: Work) -> list[Path]:
    """Every run below W/variants, finished or not."""
    places = ("*/seed*/config.json", "tune/*/*/config.json")
    return sorted(path.parent for place in places for path in work.path(VARIANTS).glob(place))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
