"""All stages in the order in which they run, and all config sections."""

from moejax.cohorts import embed
from moejax.cohorts import stage as cluster
from moejax.report import stage as report
from moejax.systems import evaluate, translate
from moejax.training import adapters, base, describe, hyper, mixture
from moejax.work import sections
from moejax.work.stage import Stage

STUDY = {
    "study": {
        "kinds": ("lora", "lora_total", "full"),  # kinds of adapters.kinds that every seed trains, not the first alone
        "systems": ("moe",),  # what a variant trains and decodes, unless it says so itself
        "heldout_systems": ("base", "lora_total", "moe"),  # the same where a cohort is held out
    },
    # {name: {section: {key: value}}}: what `--variants` changes, one run each
    "variants": {},
    # {system: {section: {key: (values, ...)}}}: every combination is tried, dev WER chooses; before all else
    "tune": {},
}
STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        *(describe.STAGE, base.STAGE, embed.STAGE, cluster.STAGE, mixture.GATE, mixture.EXPERTS, mixture.JOINT),
        *(adapters.STAGE, hyper.STAGE, evaluate.STAGE, translate.STAGE, report.STAGE),
    )
}
SECTIONS = [*(stage.sections for stage in STAGES.values()), sections.SECTIONS, STUDY]
