"""The graph of stages, and running it: finished stages are skipped, changed ones run again and say why."""

import dataclasses
import functools
import importlib
import importlib.metadata
import subprocess
import time
from pathlib import Path

from moejax import allocator
from moejax.stages import config as configs
from moejax.stages.artifacts import Work, digest, flatten, write_json


@dataclasses.dataclass(frozen=True)
class Stage:
    """`sections` are the config sections (or single keys) a stage reads; `needs` the stages whose results it reads."""

    entry: str  # module:function in moejax.stages
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    about: str
    without: tuple[str, ...] = ()  # keys of those sections that it does not read


# Adapters train as long as experts and joint together unless adapters.steps says otherwise.
BUDGET = ("experts.steps", "joint.steps")
FORMATS = ("model.weights", "evaluate.weights")
STAGES = {
    "describe": Stage(
        "describe:run", (), ("data", "describe"), "gate the audio, write manifest and splits, print hours and leakage"
    ),
    "base": Stage(
        "base:run", ("describe",), ("model", "base"), "train or fine-tune the base, or name the pretrained folder",
        without=("model.weights",),
    ),
    "embed": Stage(
        "embed:run", ("describe", "base"), ("model.weights", "embed"), "pool encoder states of every utterance"
    ),
    "cluster": Stage(
        "cluster:run", ("embed",), ("cluster", "gate.num_experts"), "discover cohorts in the embeddings of the sample"
    ),
    "gate": Stage("training:gate", ("cluster",), ("gate",), "pretrain the gate on the clusters"),
    "experts": Stage("training:experts", ("gate",), ("mixture", "experts"), "train the experts, gate frozen"),
    "joint": Stage("training:joint", ("experts",), ("joint",), "train experts and gate together"),
    "adapters": Stage(
        "adapters:run", ("describe", "base", "gate"), ("model.weights", "mixture", "gate", "adapters", *BUDGET),
        "train the baselines of the table",
    ),
    "evaluate": Stage("evaluate:run", ("joint", "adapters"), ("evaluate",), "decode the test part with every system"),
    "translate": Stage("translate:run", ("evaluate",), ("translate",), "translate the hypotheses, score BLEU and chrF"),
    "report": Stage("report:run", ("evaluate", "translate"), ("report",), "tables, figures, error analysis"),
}  # fmt: skip


def stage_modules():
    """The modules of all stages, and those that declare other sections."""
    names = dict.fromkeys([s.entry.split(":")[0] for s in STAGES.values()] + ["shared", "export"])
    return [importlib.import_module(f"moejax.stages.{name}") for name in names]


def run(config, workdir, stages=None, quiet: bool = False) -> Work:
    """Runs the stages (all, in order) in `workdir`; what `moejax all` does.

    `config` is a path (`configs/quickstart.py:fast`) or a ConfigDict. Stages before the named ones run too when they
    are not finished. Errors: unknown config keys or stages, before any work starts.
    """
    config = configs.load(config) if isinstance(config, str | Path) else configs.resolve(config)
    wanted = list(STAGES) if stages is None else [stages] if isinstance(stages, str) else list(stages)
    unknown = [name for name in wanted if name not in STAGES]
    if unknown:
        raise ValueError(f"unknown stage {unknown[0]!r}; known: {', '.join(STAGES)}")
    work = Work(workdir, quiet)
    set_up_jax(config, work)
    write_config(config, work)
    digests: dict[str, str] = {}
    for name in closure(wanted):
        run_stage(name, config, work, digests)
    return work


def closure(wanted) -> list[str]:
    """The wanted stages and all that they need, in order."""
    keep, queue = set(), list(wanted)
    while queue:
        name = queue.pop()
        if name not in keep:
            keep.add(name)
            queue.extend(STAGES[name].needs)
    return [name for name in STAGES if name in keep]


def run_stage(name: str, config, work: Work, digests: dict) -> None:
    """Runs one stage unless it is finished for exactly these inputs; records its digest for those after it."""
    module_name, function = STAGES[name].entry.split(":")
    module = importlib.import_module(f"moejax.stages.{module_name}")
    inputs = stage_inputs(name, config, digests)
    if hasattr(module, "inputs"):
        inputs["input"] = module.inputs(config)
    digests[name] = digest(inputs)
    reason = work.why_run(name, inputs)
    if reason is None:
        work.log(f"[{name}] finished before, skipped")
        return
    work.log(f"[{name}] {STAGES[name].about} ({reason})")
    work.begin(name, inputs)
    start = time.perf_counter()
    summary = getattr(module, function)(config, work)
    seconds = time.perf_counter() - start
    work.finish(name, inputs, seconds, summary or {})
    work.log(f"[{name}] done in {seconds:.1f} s")


def stage_inputs(name: str, config, digests: dict) -> dict:
    """What the stage depends on, flat, so that a change can be named."""
    inputs = {"seed": config.seed}
    for section in STAGES[name].sections:
        value = functools.reduce(lambda node, key: node[key], section.split("."), config)
        inputs.update(flatten({section: value.to_dict() if hasattr(value, "to_dict") else value}))
    # A format of weights that is not set is what every run had before there were formats: their digests stay valid.
    idle = [key for key, value in inputs.items() if key in FORMATS and not value]
    for key in (*idle, *STAGES[name].without):
        inputs.pop(key, None)
    inputs.update({f"stage {need}": digests[need] for need in STAGES[name].needs})
    return inputs


def set_up_jax(config, work) -> None:
    """Freed memory is kept; persistent compilation cache on: the second start of a run then costs a tenth of the first.
    """
    allocator.keep_pages()
    import jax

    if config.runtime.cpu_devices:
        try:
            jax.config.update("jax_num_cpu_devices", config.runtime.cpu_devices)
        except RuntimeError:
            # A program that used JAX before keeps its devices; results then differ in the last digits only.
            work.log(f"JAX runs already: runtime.cpu_devices={config.runtime.cpu_devices} is ignored")
    folder = Path(config.runtime.compilation_cache).expanduser() if config.runtime.compilation_cache else None
    if folder is not None and jax.config.jax_compilation_cache_dir is None:
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def write_config(config, work: Work) -> None:
    """W/config.json: resolved config, its digest, versions, commit."""
    values = config.to_dict()
    write_json(
        work.path("config.json"),
        {"digest": digest(values), "config": values, "versions": versions(), "commit": _commit()},
    )


def versions() -> dict:
    names = ("moejax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "numpy", "hdbscan")
    return {name: importlib.metadata.version(name) for name in names}


def _commit() -> str | None:
    here = Path(__file__).parent
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True)
    return found.stdout.strip() or None
