"""The graph of stages, and running it: finished stages are skipped, changed ones run again and say why.

What a stage depends on (`stage_inputs`): the seed (of training too, where it trains), its config sections, what it
reads from outside the workdir, and what the stages before it pass on; `work.stage.Stage` says what refines this.
"""

import functools
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from moejax.errors import BadValue
from moejax.job import config as configs
from moejax.job.stages import FIELDS, STAGES
from moejax.runtime import allocator, compilation, processes, watchdog
from moejax.runtime import versions as package_versions
from moejax.runtime.files import sweep, write_json
from moejax.training import describe
from moejax.types import Config
from moejax.work.folder import Work, digest, flatten

# Keys that change no result (of open sections, those of the user's own), and inputs that say where something lies and
# when it was written.
IDLE = {idle for key, field in FIELDS.items() for idle in field.idle(key)}
LOCATIONS = {key for key, field in FIELDS.items() if field.location} | {"input"}
LATER = {key: field.default for key, field in FIELDS.items() if field.later}


def run(
    config: str | Path | Config,
    workdir: str | Path,
    stages: str | Iterable[str] | None = None,
    quiet: bool = False,
    donors: Iterable[str | Path] = (),
) -> Work:
    """Runs the stages (those of its task, in order) in `workdir`; what `moejax all` does.

    `config` is a path (`configs/quickstart.py:fast`) or a ConfigDict. Stages before the named ones run too when they
    are not finished. A stage that another workdir, one of `donors`, has finished for the same inputs is taken over.
    Errors: unknown config keys or stages, a corpus or weights that are not there: before anything is written.
    """
    config = configs.load(config) if isinstance(config, str | Path) else configs.resolve(config)
    wanted = everything(config) if stages is None else [stages] if isinstance(stages, str) else list(stages)
    unknown = [name for name in wanted if name not in STAGES]
    if unknown:
        raise BadValue(f"unknown stage {unknown[0]!r}; known: {', '.join(STAGES)}")
    names = closure(wanted)
    work, outside = Work(workdir, quiet), {name: outside_inputs(name, config) for name in names}
    set_up_jax(config, work)
    if processes.first():
        sweep(work.root, within=False)
        sweep(work.path("states"))
    passed: dict[str, str] = {}
    others = [Work(folder) for folder in donors]
    try:
        for number, name in enumerate(names):
            run_stage(name, config, work, passed, outside[name], others)
            if number == 0:  # not before: a workdir without any result is no workdir
                write_config(config, work)
    except Exception as error:
        processes.failed(error)
        raise
    return work


def shard(config: str | Path | Config, workdir: str | Path, part: tuple[int, int], quiet: bool = False) -> Work:
    """Listens to part i of n of the corpus for the stage `describe`; what `moejax describe --shard i/n` does.

    By itself: each part is another process, on any machine that sees the workdir, and knows nothing of the others.
    Once all have ended, `run` puts the parts together. Errors: a workdir in which another corpus or config was begun.
    """
    config = configs.load(config) if isinstance(config, str | Path) else configs.resolve(config)
    name, work, (number, of) = describe.STAGE.name, Work(workdir, quiet), part
    inputs = stage_inputs(name, config, {}) | outside_inputs(name, config)
    if work.join(name, inputs):
        work.log(f"[{name}] finished before, shard {number}/{of} skipped")
        return work
    watchdog.beat(f"stage {name}")
    work.log(f"[{name}] shard {number}/{of}: {STAGES[name].about}")
    heard = describe.shard(config, work, part)
    work.log(f"[{name}] shard {number}/{of} done: {heard} utterances")
    return work


def everything(config: Config) -> list[str]:
    """The stages of the task that the config is for: all of recognition, or the last of a cross-validation or of a
    diarizer's training, which needs the others.
    """
    if config.diarizer.steps or config.ego.steps:
        return [name for name in ("diarizer", "ego") if config[name].steps]
    return ["cv"] if config.folds.models else [name for name, stage in STAGES.items() if not stage.apart]


def closure(wanted: Iterable[str]) -> list[str]:
    """The wanted stages and all that they need, in order."""
    keep, queue = set(), list(wanted)
    while queue:
        name = queue.pop()
        if name not in keep:
            keep.add(name)
            queue.extend(STAGES[name].needs)
    return [name for name in STAGES if name in keep]


def outside_inputs(name: str, config: Config) -> dict:
    """{"input": digest} of what the stage reads from outside the workdir; {} for nothing."""
    outside = STAGES[name].outside
    found = None if outside is None else outside(config)
    return {} if found is None else {"input": found}


def run_stage(
    name: str, config: Config, work: Work, passed: dict[str, str], outside: dict, donors: Sequence[Work] = ()
) -> None:
    """Runs one stage unless it is finished for exactly these inputs, here or in a donor; records in `passed` what it
    passes on.
    """
    inputs = stage_inputs(name, config, passed) | outside
    reason = None
    if processes.first():
        reason = work.why_run(name, inputs)
        donor = next((d for d in donors if d.why_run(name, inputs) is None), None)
        if reason is None:
            work.log(f"[{name}] finished before, skipped")
        elif donor:
            reason = None
            work.take_over(name, donor, inputs, force=config.runtime.force)
            work.log(f"[{name}] taken over from {donor.root}")
        else:
            work.log(f"[{name}] {STAGES[name].about} ({reason})")
            work.begin(name, inputs, force=config.runtime.force, keep=STAGES[name].keeps and not config.runtime.force)
    if processes.agree(reason) is None:
        passed[name] = processes.agree(processes.first() and passed_on(work.finished(name) or {}))
        return
    watchdog.beat(f"stage {name}")
    start = time.perf_counter()
    summary = {}
    try:
        mine = STAGES[name].together or STAGES[name].shared or processes.first()
        if mine and not _idle(name, config):
            with processes.working(STAGES[name].together):
                summary = STAGES[name].run(seeded(name, config), work) or {}
    except BaseException:
        if processes.first():
            work.abandon(name)
        raise
    seconds = time.perf_counter() - start
    if processes.first():
        passed[name] = passing(name, inputs, summary)
        work.finish(name, inputs, seconds, summary, passes=passed[name], config=sections_of(name, config))
        work.log(f"[{name}] done in {seconds:.1f} s")
    passed[name] = processes.agree(passed.get(name))


def seeded(name: str, config: Config) -> Config:
    """The config as the stage sees it: one that trains draws by seed + train_seed."""
    if not (STAGES[name].reseeded and config.train_seed):
        return config
    return configs.changed(config, {"seed": config.seed + config.train_seed})


def sections_of(name: str, config: Config) -> dict:
    """The part of the config that the stage reads, nested as the config is."""
    found: dict = {"seed": config.seed}
    if STAGES[name].reseeded and config.train_seed:  # 0 is as if there were no such key
        found["train_seed"] = config.train_seed
    for section in STAGES[name].reads:
        *above, key = section.split(".")
        node = found
        for part in above:
            node = node.setdefault(part, {})
        value = functools.reduce(lambda node, key: node[key], section.split("."), config)
        node[key] = value.to_dict() if hasattr(value, "to_dict") else value
    return found


def stage_inputs(name: str, config: Config, passed: dict[str, str]) -> dict:
    """What the stage depends on, flat, so that a change can be named; without what it reads from outside."""
    if _idle(name, config):
        return {STAGES[name].switch: ()}
    inputs = flatten(sections_of(name, config))
    inputs = {key: value for key, value in inputs.items() if key not in IDLE and key not in STAGES[name].without}
    inputs = {key: value for key, value in inputs.items() if key not in LATER or value != LATER[key]}
    inputs.update({f"stage {need}": passed[need] for need in STAGES[name].needs if not _idle(need, config)})
    return inputs


def _idle(name: str, config: Config) -> bool:
    """Whether the stage has nothing to do: workdirs of the time before it stay finished."""
    switch = STAGES[name].switch
    return bool(switch) and not functools.reduce(lambda node, key: node[key], switch.split("."), config)


def passing(name: str, inputs: dict, summary: dict) -> str:
    """The digest by which later stages know this one: of its inputs, with its content in place of its locations, so
    that a corpus that was copied or touched is described once more and nothing is trained anew.
    """
    if "content" not in summary:
        return digest(inputs)
    kept = {key: value for key, value in inputs.items() if key not in LOCATIONS}
    return digest({**kept, "content": summary["content"]})


def passed_on(done: dict) -> str:
    """What a finished stage passes on; before there were contents, the digest of its inputs."""
    return done.get("passes", done["digest"])


def set_up_jax(config: Config, work: Work) -> None:
    """Freed memory is kept; persistent compilation cache on: a second start then costs a tenth of the first."""
    allocator.keep_pages()
    import jax

    if config.runtime.cpu_devices:
        try:
            jax.config.update("jax_num_cpu_devices", config.runtime.cpu_devices)
        except RuntimeError:
            # A program that used JAX before keeps its devices; results then differ in the last digits only.
            work.log(f"JAX runs already: runtime.cpu_devices={config.runtime.cpu_devices} is ignored")
    processes.start(config.runtime.heartbeat)
    compilation.keep_programs(config.runtime.compilation_cache)


def write_config(config: Config, work: Work) -> None:
    """W/config.json: resolved config, its digest, versions, commit."""
    values = config.to_dict()
    write_json(
        work.path("config.json"),
        {"digest": digest(values), "config": values, "versions": versions(), "commit": _commit()},
    )


def versions() -> dict[str, str]:
    names = ("moejax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy", "hdbscan")
    return package_versions.of(names)


def _commit() -> str | None:
    here = Path(__file__).parent
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True)
    return found.stdout.strip() or None
