"""summary.json: what other programs read of the report. Undefined figures are null."""

import dataclasses
import math
from typing import Any

from moejax.report import factors_page
from moejax.report.findings import Findings


def of(found: Findings) -> dict:
    """The content of summary.json."""
    table = found.published.to_dict()
    rows = {r["system"]: r for r in table["rows"] if r["group"] == "all"}
    systems = {}
    for name, size in found.sizes.items():
        row = rows[name]
        systems[name] = {
            "wer": row["wer"],
            "trainable": size.trainable,
            "total": size.total,
            "utterances": row["utterances"],
            "wer_low": row["wer_low"],
            "wer_high": row["wer_high"],
            "cer": row["cer"],
            "wer_atypical": found.atypical[name],
        }
    made = {
        "stages": dict(found.provenance.stages),
        "systems": systems,
        "differences": table["differences"],
        "empty_references": table["empty_references"],
        "interval": f"95 %, bootstrap over {found.table.unit}",
        "routing": found.routing,
        "clusters": found.clusters,
        "translation": found.translation,
        "factors": _factors(found),
        "versions": found.provenance.versions,
        "config_digest": found.provenance.config_digest,
        "data_digest": found.provenance.data_digest,
    }
    return made if found.study is None else made | {"study": found.study.to_dict()}


def _factors(found: Findings) -> dict:
    """Where the errors occur: the sentences, by system what each factor explains, and the changes against the base."""
    factors = found.factors
    made = {
        part: {system: dataclasses.asdict(value) for system, value in getattr(factors, part).items()}
        for part in ("models", "typical", "majority")
    }
    return _finite({"sentences": factors_page.sentences(factors, found.focus), **made})


def _finite(value) -> Any:
    """The same with None for what is not a number."""
    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
