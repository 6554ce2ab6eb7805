"""The rule by which transcripts are compared: the one that the config's section `report` names, for all stages."""

import json
import os

from moejax.errors import NotThere
from moejax.text import normalize


def normalizer(options) -> normalize.Normalizer:
    """The text normaliser that the config's section `report` names, with its spelling table. Errors: no such file."""
    spelling = None
    if options.spelling:
        if not os.path.exists(options.spelling):
            raise NotThere(f"report.spelling names {options.spelling!r}, which does not exist")
        with open(options.spelling, encoding="utf-8") as file:
            spelling = json.load(file)
    return normalize.get(options.normalizer, spelling)
