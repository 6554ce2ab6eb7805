"""Corpora: each module reads one kind and gives a list of `Utterance`; `SOURCES` is the list of what there is."""

from moejax.data.sources import builtin, digits, folder, hf

SOURCES = {
    "builtin": builtin.load,
    "folder": folder.load,
    "hf": hf.load,
    "digits": digits.load,
}
