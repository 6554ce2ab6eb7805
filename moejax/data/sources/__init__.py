"""Corpora: each module reads one kind and gives its `Utterance`s; `SOURCES` is the list of what there is."""

from moejax.data.sources import arrayrecord, builtin, digits, folder, hf, webdataset

SOURCES = {
    "builtin": builtin.load,
    "folder": folder.load,
    "hf": hf.load,
    "arrayrecord": arrayrecord.load,
    "webdataset": webdataset.load,
    "digits": digits.load,
}
