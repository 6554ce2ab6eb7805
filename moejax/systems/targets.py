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
from moejax.work.folder import Work, digest
from moejax.work.stage import Stage


def run(cfg: Config, work: Work) -> dict:
    """Writes W/targets/translations.jsonl: {id, text, translation, translation_source}, the source being who made it
    and when. Errors: BadValue with translate.dry_run, after what it would cost was said: nothing can be learnt then.
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
            raise BadValue("translate.dry_run: nothing is sent, and st.kinds learns from these translations")
    made = dict(zip(texts, translator.translate(texts), strict=True))
    source = f"{maker}:{datetime.date.today().isoformat()}"
    lines = [
        {"id": str(column("id")[row]), "text": text, "translation": made[text], "translation_source": source}
        for row in rows
        for text in [str(column("text")[row])]
        if made[text].strip()
    ]
    if len(lines) < len(rows):
        work.log(f"  {maker} left {len(rows) - len(lines)} of {len(rows)} utterances without a translation")
    write_text(work.path(*st.MADE), "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    content = digest([[line["id"], line["translation"]] for line in lines])
    return {"by": maker, "utterances": len(lines), "texts": len(texts), "content": content}


def outside(cfg: Config) -> str | None:
    """What the translator depends on, and nothing that another one does; a model's folder by its content."""
    own = {"deepl": (), "deepl_custom": tuple(f"deepl_{key}" for key in translators.CUSTOM), "ctranslate2": ("folder",)}
    keys = {key: str(cfg.translate[key]) for key in own.get(cfg.st.targets, ())}
    files = None if cfg.st.targets == "deepl" else translators.outside(cfg, [cfg.st.targets])
    return digest({"keys": keys, "files": files})


STAGE = Stage(
    "targets",
    run,
    needs=("describe",),
    reads=("st.targets", "data.language", "translate.target"),
    outside=outside,
    switch="st.targets",
)
