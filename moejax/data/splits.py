"""Train, dev and test by stable hashing, so that a corpus can grow without an old utterance changing sides.

Every decision is a number in [0, 1) hashed from (seed, what is hashed, its name): below the test share is test, below
test plus dev is dev, the rest is train. So an assignment depends on the name alone, not on order or company.

One rule looks at the company. A hash can leave a small speaker without test utterances, so `_portion` *fills* a group
that is large enough: in the order of their numbers the first is test if nobody is, the next is dev if nobody is (and
the last is train). No rule without memory can guarantee that and never move anything. The limits of this one: by adding
data an old train utterance never becomes dev or test, unless its group just grew past the threshold; a filler may go
back (test to dev or train, dev to train) when a newcomer takes its place. That concerns at most two utterances of a
group, and only in groups that the hash left empty-handed.
"""

import hashlib
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from moejax.data.manifest import SPLITS
from moejax.errors import BadValue

_OFFICIAL_NAMES = {
    **{"train": "train", "training": "train", "dev": "dev", "valid": "dev", "val": "dev", "validation": "dev"},
    **{"development": "dev", "test": "test", "testing": "test"},
}
PROMPTS, DEV_BY = ("shared", "disjoint"), ("utterance", "speaker")
FILL_UTTERANCES = 10  # a speaker with this many utterances gets at least one in dev and one in test
FILL_SPEAKERS = 5  # a cohort with this many speakers gets at least one speaker in dev and one in test
FILL_ALL_SPEAKERS = 3  # and so does a whole corpus with this many


def unit(seed: int, kind: str, name: str) -> float:
    """A number in [0, 1) that is always the same for the same (seed, kind, name) and otherwise like a random one."""
    digest = hashlib.blake2b(f"{seed}\0{kind}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def prompts(columns: Mapping[str, Sequence[str]]) -> list[str]:
    """What was said: the prompt, else the text in lower case with single spaces."""
    return list(_prompts(columns))


def _prompts(columns: Mapping[str, Sequence[str]]) -> Iterator[str]:
    given = columns.get("prompt") or [""] * len(columns["text"])
    for prompt, text in zip(given, columns["text"], strict=True):
        yield str(prompt) if prompt else " ".join(str(text).lower().split())


def assign(
    columns: Mapping[str, Sequence[str]],
    *,
    scheme: str,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    **options,
) -> list[str]:
    """The part (train, dev, test) of every row of `columns` (id, text, speaker, cohort, prompt, split).

    fractions are train, dev, test. Options that are empty (None, "", (), False) are as good as not given; an option
    that the scheme does not know is a ValueError, as is an unknown scheme.
    """
    given = check(scheme, fractions, options)
    return SCHEMES[scheme](columns, seed=seed, shares=(fractions[1], fractions[2]), **given)


def check(scheme: str, fractions: Sequence[float], options: Mapping, where: str = "split: ") -> dict:
    """The options that are given, or ValueError for what `assign` could do nothing with, whatever the corpus."""
    if scheme not in SCHEMES:
        raise BadValue(f"{where}unknown scheme {scheme!r}; known: {', '.join(SCHEMES)}")
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or not fractions[0]:
        raise BadValue(
            f"{where}fractions {tuple(fractions)} are not three shares (train, dev, test) that add up to 1, with some"
            " for train"
        )
    known = {
        name: kind.default
        for name, kind in inspect.signature(SCHEMES[scheme]).parameters.items()
        if name not in ("columns", "seed", "shares")
    }
    given = {name: value for name, value in options.items() if value not in (None, "", (), [], False)}
    for name, value in given.items():
        if name not in known:
            raise BadValue(f"{where}scheme {scheme} has no option {name!r}; it has {', '.join(known) or 'none'}")
        usual = known[name]
        if isinstance(usual, tuple):
            if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
                raise BadValue(f"{where}{name} is {value!r}; it takes a list of names")
        elif not isinstance(value, type(usual)):
            raise BadValue(f"{where}{name} is {value!r}; it takes {'True or False' if usual is False else 'text'}")
    if (value := given.get("prompts", "shared")) not in PROMPTS:
        raise BadValue(f"{where}prompts={value!r}; known: {', '.join(PROMPTS)}")
    if (value := given.get("dev_by", "utterance")) not in DEV_BY:
        raise BadValue(f"{where}dev_by={value!r}; known: {', '.join(DEV_BY)}")
    return given


def unseen(columns, *, names: Sequence[str] = (), share: float = 0.0, seed: int = 0) -> set[str]:
    """The speakers that train and dev are not to hear: `names`, and a share of each cohort's, rounded up, by hash.

    Errors: a name that the corpus does not have, a share outside [0, 1), a cohort that would keep no speaker.
    """
    if not 0 <= share < 1:
        raise BadValue(f"data.unseen_share is {share}; needs 0 <= share < 1")
    known = set(columns["speaker"])
    for name in names:
        if name not in known:
            raise BadValue(f"data.unseen_speakers: no speaker {name!r} in the corpus; it has {_listing(known)}")
    chosen = set(names)
    if share:
        _need(columns["speaker"], "speaker", "data.unseen_share")
        for cohort, speakers in _groups(columns["cohort"], list(columns["speaker"])).items():
            order = sorted(set(speakers) - chosen, key=lambda name: unit(seed, "unseen", name))
            if (count := math.ceil(share * len(order) - 1e-9)) >= len(order):
                raise BadValue(f"data.unseen_share={share} leaves cohort {cohort!r} none of its {len(order)} speakers")
            chosen.update(order[:count])
    return chosen


def sample(columns: Mapping[str, Sequence[str]], *, share: float = 0.2, seed: int = 0) -> list[bool]:
    """Marks a stable share of the train rows (for embedding and expert pretraining), at least one of every speaker."""
    chosen, speakers = np.zeros(len(columns["split"]), bool), columns["speaker"]
    first: dict[str, tuple[float, int]] = {}  # of every speaker the smallest number, and its row
    for row, (name, part) in enumerate(zip(columns["id"], columns["split"], strict=True)):
        if part == "train":
            number = unit(seed, "sample", name)
            chosen[row] = number < share
            if speakers[row] not in first or number < first[speakers[row]][0]:
                first[speakers[row]] = number, row
    if share > 0:
        chosen[[row for _, row in first.values()]] = True  # where none is below the share; else it is marked already
    return chosen.tolist()


def per_speaker(columns, *, seed, shares, prompts: str = "shared") -> list[str]:
    """Every speaker's utterances in all three parts, each by its own id: the same for a cohort and for everybody.

    prompts="disjoint" hashes the prompt instead, for all speakers alike: no prompt in two parts, and nothing is filled.
    """
    if prompts == "disjoint":
        return prompt_disjoint(columns, seed=seed, shares=shares)
    ids, parts = columns["id"], [""] * len(columns["id"])
    for rows in _groups(columns["speaker"]).values():
        number = {row: unit(seed, "utterance", ids[row]) for row in rows}
        for row, part in _portion(number, shares, fill=len(rows) >= FILL_UTTERANCES).items():
            parts[row] = part
    if len(ids) >= FILL_UTTERANCES and not set(SPLITS) <= set(parts):
        # Many speakers with a few utterances each: the corpus is the group.
        filled = _portion({row: unit(seed, "utterance", ids[row]) for row in range(len(ids))}, shares, fill=True)
        parts = [filled[row] for row in range(len(ids))]
    return parts


def prompt_disjoint(columns, *, seed, shares) -> list[str]:
    """No prompt in two parts. One prompt goes one way for all who said it, so a speaker may be missing in a part."""
    said = prompts(columns)
    number = {prompt: unit(seed, "prompt", prompt) for prompt in said}
    part = _portion(number, shares, fill=len(number) >= FILL_UTTERANCES)
    return [part[prompt] for prompt in said]


def speaker_disjoint(
    columns,
    *,
    seed,
    shares,
    stratify: bool = False,
    test_speakers: Sequence[str] = (),
    dev_speakers: Sequence[str] = (),
) -> list[str]:
    """No speaker in two parts, by hash of the speaker; the lists replace the hash for test and for dev.

    Filled over the whole corpus from 3 speakers on; with `stratify` also within every cohort of at least 5.
    """
    speakers = columns["speaker"]
    _need(speakers, "speaker", "speaker_disjoint")
    known = set(speakers)
    for name in (*test_speakers, *dev_speakers):
        if name not in known:
            raise BadValue(f"split: no speaker {name!r} in the corpus; it has {_listing(known)}")
    both = set(test_speakers) & set(dev_speakers)
    if both:
        raise BadValue(f"split: speaker {sorted(both)[0]!r} stands in test_speakers and in dev_speakers")
    part = {name: "test" for name in test_speakers} | {name: "dev" for name in dev_speakers}
    shares = (0.0 if dev_speakers else shares[0], 0.0 if test_speakers else shares[1])
    number = {name: unit(seed, "speaker", name) for name in known - set(part)}
    cohort_of = {}
    for name, cohort in zip(speakers, columns["cohort"], strict=True):
        cohort_of[name] = min(cohort_of.get(name, cohort), cohort)
    groups = {"": list(number)}
    if stratify:
        groups = _groups([cohort_of[name] for name in number], list(number))
    for names in groups.values():
        part |= _portion({name: number[name] for name in names}, shares, fill=stratify and len(names) >= FILL_SPEAKERS)
    if not stratify or not set(SPLITS) <= set(part.values()):
        part |= _portion(number, shares, fill=len(known) >= FILL_ALL_SPEAKERS)
    return [part[name] for name in speakers]


def cohort_heldout(columns, *, seed, shares, test_cohorts: Sequence[str] = ()) -> list[str]:
    """The named cohorts are test; the others are train and dev, dev by hash of the utterance, filled per speaker."""
    known = set(columns["cohort"])
    if not test_cohorts:
        raise BadValue(f"split: cohort_heldout needs test_cohorts; the corpus has {_listing(known)}")
    for name in test_cohorts:
        if name not in known:
            raise BadValue(f"split: no cohort {name!r} in the corpus; it has {_listing(known)}")
    parts = ["test" if cohort in test_cohorts else "train" for cohort in columns["cohort"]]
    return _carve_dev(columns, parts, seed=seed, share=shares[0], by="utterance")


def official(columns, *, seed, shares, dev_by: str = "utterance") -> list[str]:
    """The parts that the corpus itself names; where it has no dev, that is carved from its train by hash.

    dev_by="speaker" carves whole speakers, so that dev is as unheard as test is in a speaker-disjoint corpus.
    """
    given = [str(name).strip().lower() for name in columns["split"]]
    for identity, name in zip(columns["id"], given, strict=True):
        if name not in _OFFICIAL_NAMES:
            raise BadValue(
                f"split: scheme official, but {identity!r} has split {name!r}; known: {', '.join(_OFFICIAL_NAMES)} "
                "(map a column to split in data.columns)"
            )
    parts = [_OFFICIAL_NAMES[name] for name in given]
    return parts if "dev" in parts else _carve_dev(columns, parts, seed=seed, share=shares[0], by=dev_by)


def _carve_dev(columns, parts: list[str], *, seed: int, share: float, by: str) -> list[str]:
    parts = list(parts)
    train = [row for row, part in enumerate(parts) if part == "train"]
    speaker = [columns["speaker"][row] for row in train]
    if by == "speaker":
        _need(speaker, "speaker", "official with dev_by=speaker")
        number = {name: unit(seed, "speaker", name) for name in set(speaker)}
        part = _portion(number, (share, 0.0), fill=len(number) >= FILL_ALL_SPEAKERS)
        chosen = [row for row, name in zip(train, speaker, strict=True) if part[name] == "dev"]
    else:
        chosen = []
        for rows in _groups(speaker, train).values():
            number = {row: unit(seed, "utterance", columns["id"][row]) for row in rows}
            part = _portion(number, (share, 0.0), fill=len(rows) >= FILL_UTTERANCES)
            chosen += [row for row in rows if part[row] == "dev"]
    for row in chosen:
        parts[row] = "dev"
    return parts


def _portion(number: Mapping, shares: tuple[float, float], *, fill: bool) -> dict:
    """{key: part} from {key: number in [0, 1)} by thresholds; `fill` is the rule in the module's docstring."""
    dev, test = shares
    order = sorted(number, key=number.__getitem__)
    tests = sum(number[key] < test for key in order)
    devs = sum(number[key] < test + dev for key in order) - tests
    if fill:
        above = tests + devs
        tests = min(max(tests, 1), len(order) - 2) if test > 0 else 0
        devs = min(max(above - tests, 1), len(order) - tests - 1) if dev > 0 else 0
    names = ["test"] * tests + ["dev"] * devs + ["train"] * (len(order) - tests - devs)
    return dict(zip(order, names, strict=True))


def _groups(names: Sequence, members: Sequence | None = None) -> dict:
    groups: dict = {}
    for name, member in zip(names, range(len(names)) if members is None else members, strict=True):
        groups.setdefault(name, []).append(member)
    return groups


def _need(values: Sequence[str], what: str, scheme: str) -> None:
    missing = sum(not value for value in values)
    if missing:
        raise BadValue(
            f"split: scheme {scheme} needs a {what} for every utterance; {missing} of {len(values)} have none"
        )


def _listing(names) -> str:
    names = sorted(str(name) or "(none)" for name in names)
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def leakage(columns: Mapping[str, Sequence[str]], recordings: Sequence[str] = ()) -> list[dict]:
    """How much of one part also stands in another: rows of (part, other, what, distinct, shared, share, utterances).

    what is id, speaker, prompt and, if digests of the samples are given, recording. `distinct` counts those of the
    part, `shared` those of them that the other part has too, `share` is their ratio, `utterances` the part's
    utterances that carry a shared one. Rows without a speaker do not count.
    """
    split = np.fromiter((SPLITS.index(part) for part in columns["split"]), np.int8, len(columns["split"]))
    said = {"id": columns["id"], "speaker": columns["speaker"], "prompt": _prompts(columns)}
    if len(recordings):
        said["recording"] = recordings
    kinds = {what: _numbers(values, len(split)) for what, values in said.items()}
    table = []
    for part, other in (("test", "train"), ("dev", "train"), ("test", "dev")):
        for what, values in kinds.items():
            here = values[(split == SPLITS.index(part)) & (values != 0)]
            distinct = np.unique(here)
            shared = np.intersect1d(distinct, values[split == SPLITS.index(other)])
            table.append(
                {
                    **{"part": part, "other": other, "what": what, "distinct": len(distinct), "shared": len(shared)},
                    "share": len(shared) / len(distinct) if len(distinct) else 0.0,
                    "utterances": int(np.isin(here, shared).sum()),
                }
            )
    return table


def _numbers(values: Iterable[str], count: int) -> np.ndarray:
    """Eight bytes for each text, the same for the same; 0 for none. A million texts in sets would be gigabytes."""
    digests = (hashlib.blake2b(str(value).encode(), digest_size=8).digest() if value else bytes(8) for value in values)
    return np.frombuffer(b"".join(digests), "<u8", count)


SCHEMES = {
    "per_speaker": per_speaker,
    "speaker_disjoint": speaker_disjoint,
    "prompt_disjoint": prompt_disjoint,
    "cohort_heldout": cohort_heldout,
    "official": official,
}
