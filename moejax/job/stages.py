"""All stages in the order in which they run, and all config sections with every key."""

from moejax.cohorts import embed
from moejax.cohorts import stage as cluster
from moejax.diarize import ego, talks
from moejax.diarize import train as diarizer
from moejax.report import sounds
from moejax.report import stage as report
from moejax.systems import emotions, evaluate, targets, translate
from moejax.training import (
    adapters,
    base,
    clips,
    crossval,
    ctc,
    describe,
    emotion,
    goodness,
    hyper,
    mixture,
    rater,
    salmonn,
    st,
)
from moejax.work import fields, sections
from moejax.work.fields import Field
from moejax.work.stage import Stage

STUDY = {
    "study": {
        "kinds": Field(
            ("lora", "lora_total", "full"),
            "Kinds of adapters.kinds that every training seed trains, not the first alone.",
            choices=tuple(adapters.KINDS),
        ),
        "systems": Field(("moe",), "Systems that a variant trains and decodes, unless it says so itself."),
        "heldout_systems": Field(
            ("base", "lora_total", "moe"), "Systems that are trained and decoded where a cohort is held out."
        ),
    },
    "variants": Field({}, "{name: {section: {key: value}}}: what --variants changes, one run each."),
    "tune": Field(
        {},
        "{system: {section: {key: (values, ...)}}}: every combination is tried before all else, dev WER chooses.",
    ),
}
STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        *(describe.STAGE, base.STAGE, embed.STAGE, cluster.STAGE, mixture.GATE, mixture.EXPERTS, mixture.JOINT),
        *(adapters.STAGE, hyper.STAGE, targets.STAGE, st.STAGE, ctc.STAGE, emotion.STAGE, salmonn.STAGE),
        *(goodness.STAGE, rater.STAGE),
        *(evaluate.STAGE, translate.STAGE, report.STAGE),
        *(clips.STAGE, crossval.STAGE, sounds.STAGE, emotions.STAGE),
        *(talks.STAGE, diarizer.STAGE, ego.STAGE),
    )
}
DECLARED = (sections.RUN, *(stage.sections for stage in STAGES.values()), sections.SECTIONS, STUDY)
SECTIONS = {name: section for declared in DECLARED for name, section in declared.items()}
FIELDS = fields.flat(SECTIONS)
