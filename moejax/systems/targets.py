"""What the stage `st` shall learn to write, where the corpus has no translations: made by a translator, marked so.

Texts of train and dev alone are sent: a test reference is never made here.
"""

import datetime
import json

import numpy as np

from moejax.errors import BadValue
from moejax.runtime.files import write_text
from moejax.systems import translators
from moejax.training import st
from moejax.types import Config
from moejax.work.context import Context
from moejax.work.folder import Work
from moejax.work.stage import Stage

# Of the section translate, what a translation depends on
READS = ("target", "folder", "dry_run", "deepl_server", "deepl_tags", *(f"deepl_{key}" for key in translators.CUSTOM))


def run(cfg: Config, work: Work) -> dict:
    """Writes W/targets/translations.jsonl: {id, text, translation, translation_source}, the source being who made it
    and when. With translate.dry_run what it would cost is said, and nothing is sent.
    """
    maker = cfg.st.targets
    if not maker:
        return {}
    context = Context(cfg, work)
    column = context.corpus.manifest.column
    rows = np.concatenate([context.corpus.manifest.indices(split=part) for part in ("train", "dev")])
    rows = [row for row in rows.tolist() if not column("translation")[row]]
    texts = list(dict.fromkeys(str(column("text")[row]) for row in rows))
    translator = translators.opened(context, [maker])[maker]
    work.log(f"  {len(texts)} texts of {len(rows)} utterances without a translation, by {maker}")
    if maker in translators.BILLED:
        work.log(f"  {translator.costs(texts)}")
        if cfg.translate.dry_run:
            work.log("  translate.dry_run: nothing is sent")
            return {"dry_run": True}
    made = dict(zip(texts, translator.translate(texts), strict=True))
    if empty := sum(not text.strip() for text in made.values()):
        raise BadValue(f"st.targets: {maker} left {empty} of {len(texts)} texts without a translation")
    source = f"{maker}:{datetime.date.today().isoformat()}"
    lines = [
        {"id": str(column("id")[row]), "text": text, "translation": made[text], "translation_source": source}
        for row in rows
        for text in [str(column("text")[row])]
    ]
    write_text(work.path(*st.MADE), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return {"by": maker, "utterances": len(lines), "texts": len(texts)}


def outside(cfg: Config) -> str | None:
    """What the translator reads outside the workdir, by its content."""
    return translators.outside(cfg, [cfg.st.targets])


STAGE = Stage(
    "targets",
    run,
    needs=("describe",),
    reads=("st.targets", *(f"translate.{key}" for key in READS), "translate.deepl_memory_threshold"),
    outside=outside,
    switch="st.targets",
)
