"""table.md: the whole table, what the systems put together from others are, and the runs over seeds and variants."""

from moejax.report import study_page
from moejax.report.findings import Findings


def markdown(found: Findings) -> str:
    """The page table.md."""
    text = f"# Word error rates\n\n{found.table.to_markdown(found.main)}\n"
    text += f"Texts are compared under the normaliser `{found.normalizer}`.\n"
    for name, kind in found.derived.items():
        text += f"\n`{name}`: every utterance recognised by its own {kind}'s adapter: an oracle, not in the CSV.\n"
    return text if found.study is None else text + "\n" + study_page.markdown(found.study)
