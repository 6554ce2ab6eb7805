"""Corpora: each module reads one kind and gives its `Utterance`s; `SOURCES` is the list of what there is."""

from moejax.data.sources import (
    arrayrecord,
    builtin,
    commonvoice,
    digits,
    emotions,
    folder,
    hf,
    mandarin,
    sounds,
    webdataset,
)

SOURCES = {
    "builtin": builtin.load,
    "folder": folder.load,
    "hf": hf.load,
    "arrayrecord": arrayrecord.load,
    "webdataset": webdataset.load,
    "commonvoice": commonvoice.load,
    "digits": digits.load,
    "classes": sounds.classes,
    "esc50": sounds.esc50,
    "urbansound8k": sounds.urbansound8k,
    "ravdess": emotions.ravdess,
    "cremad": emotions.cremad,
    "emodb": emotions.emodb,
    "mandarin": mandarin.load,
}
