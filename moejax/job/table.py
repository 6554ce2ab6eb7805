"""`moejax.evaluate`: decode a workdir's systems and score them, the table of the report without the report."""

from collections.abc import Iterable
from pathlib import Path

from moejax.errors import BadValue, NotThere
from moejax.job import graph
from moejax.job.opening import as_trained, open_context
from moejax.report import load
from moejax.score import tables
from moejax.systems import evaluate as evaluation
from moejax.systems import registry
from moejax.types import Config
from moejax.work.normalizer import normalizer


def evaluate(
    workdir_or_config: str | Path | Config, systems: str | Iterable[str] | None = None, split: str = "test"
) -> tables.Table:
    """Word error rates of a workdir's systems on one split: `.rows`, `.to_markdown()`, `.to_csv()`, `.to_dict()`.

    A config (a path such as `configs/quickstart.py:fast`, or a ConfigDict) is first run up to its adapters in
    runs/<name>; a variant's name is <name>-<variant>. `systems` are names, by default those that the report has.
    Everything is decoded anew and nothing is written. Errors: KeyError for a system that was not trained, ValueError
    for an empty split or a system that no longer fits the stages before it; all name what there is.
    """
    context = open_context(_workdir(workdir_or_config))
    cfg, work = context.cfg, context.work
    names = [systems] if isinstance(systems, str) else list(systems or evaluation.chosen(cfg, work))
    known, rule = load.utterances(work), normalizer(cfg.report)
    rows, scored, found, opened = context.corpus.rows(split), [], [], {}
    for name in names:
        stage = registry.find(work, name).stage
        trained = opened[stage] = opened.get(stage) or as_trained(context, name)
        system = registry.open_system(trained, name)
        scope = evaluation.own_rows(trained, rows, system)
        if len(scope):  # a speaker's adapter decodes its own speaker only, who may have nothing in this split
            scored += load.score(evaluation.decode(trained, system, scope), name, known, rule)
            found.append(name)
    if not scored:
        raise BadValue(f"none of {', '.join(names)} has an utterance of its own in split {split!r}")
    return tables.build(
        scored,
        systems=found,
        cohorts=load.cohorts(scored, cfg.report.typical),
        against=tuple(cfg.report.against),
        draws=cfg.report.draws,
        seed=cfg.seed,
    )


def _workdir(source) -> Path:
    """The workdir itself, or that of a config, whose stages are run if they are not finished."""
    if isinstance(source, str | Path) and Path(source).is_dir():
        if not Path(source, "config.json").is_file() or not Path(source, "base", "model.json").is_file():
            raise NotThere(f"{source} is no moejax workdir: it has no config.json or no base/model.json")
        return Path(source)
    config = graph.configs.load(str(source)) if isinstance(source, str | Path) else graph.configs.resolve(source)
    work = graph.run(config, Path("runs", config.name), ["joint", "adapters"])
    return work.root
