"""summary.json: what other programs read of the report. Undefined figures are null."""

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
        "versions": found.provenance.versions,
        "config_digest": found.provenance.config_digest,
        "data_digest": found.provenance.data_digest,
    }
    return made if found.study is None else made | {"study": found.study.to_dict()}
