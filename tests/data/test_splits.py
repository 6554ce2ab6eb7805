import collections

import pytest

from moejax.data import splits

SHARED = {"seed": 3}


def corpus(speakers=8, each=60, cohorts=3, sentences=40):
    rows = [(p, u) for p in range(speakers) for u in range(each)]
    return {
        "id": [f"p{p}-u{u}" for p, u in rows],
        "speaker": [f"p{p}" for p, _ in rows],
        "cohort": [f"c{p % cohorts}" for p, _ in rows],
        "text": [f"sentence {(u * 7 + p) % sentences}" for p, u in rows],
        "prompt": ["" for _ in rows],
        "split": ["" for _ in rows],
    }


def pick(columns, rows):
    return {name: [values[row] for row in rows] for name, values in columns.items()}


def by_id(columns, **options):
    return dict(zip(columns["id"], splits.assign(columns, **{**SHARED, **options}), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "per_speaker"},
        {"scheme": "per_speaker", "prompts": "disjoint"},
        {"scheme": "prompt_disjoint"},
        {"scheme": "speaker_disjoint"},
        {"scheme": "speaker_disjoint", "stratify": True},
        {"scheme": "cohort_heldout", "test_cohorts": ("c1",)},
    ],
)
def test_shares_are_near_what_was_asked_and_order_does_not_matter(options):
    columns = corpus(speakers=40)
    parts = by_id(columns, **options)
    share = {part: count / len(parts) for part, count in collections.Counter(parts.values()).items()}
    if options["scheme"] != "cohort_heldout":
        assert 0.6 < share["train"] < 0.92 and share["dev"] > 0.02 and share["test"] > 0.02
    assert by_id(pick(columns, range(len(columns["id"]))[::-1]), **options) == parts
    assert by_id(columns, **options, seed=4) != parts


def test_per_speaker_is_the_same_for_a_cohort_and_for_everybody():
    columns = corpus()
    parts = by_id(columns, scheme="per_speaker")
    for cohort in ("c0", "c1", "c2"):
        rows = [row for row, name in enumerate(columns["cohort"]) if name == cohort]
        alone = by_id(pick(columns, rows), scheme="per_speaker")
        assert alone == {name: parts[name] for name in alone}


@pytest.mark.parametrize("each", range(10, 24))
def test_every_speaker_with_ten_utterances_is_in_every_part(each):
    columns = corpus(speakers=30, each=each)
    parts = splits.assign(columns, scheme="per_speaker", seed=each)
    found = collections.defaultdict(set)
    for speaker, part in zip(columns["speaker"], parts, strict=True):
        found[speaker].add(part)
    assert all(found[speaker] == {"train", "dev", "test"} for speaker in found)


def test_adding_utterances_never_moves_an_old_one_out_of_train_and_moves_few_at_all():
    columns = corpus(speakers=60, each=40)
    old = pick(columns, [row for row, name in enumerate(columns["id"]) if int(name.split("-u")[1]) < 12])
    before, after = by_id(old, scheme="per_speaker"), by_id(columns, scheme="per_speaker")
    moved = collections.Counter((before[name], after[name]) for name in before if before[name] != after[name])
    assert moved and not {pair for pair in moved if pair[0] == "train"}
    assert sum(moved.values()) <= 2 * 60
    # Speakers that the hash had served in all parts do not move at all.
    plain = {name: splits.unit(3, "utterance", name) for name in before}
    for speaker in set(old["speaker"]):
        names = [name for name in before if name.startswith(f"{speaker}-")]
        if {0 if plain[n] < 0.1 else 1 if plain[n] < 0.2 else 2 for n in names} == {0, 1, 2}:
            assert all(before[name] == after[name] for name in names)


@pytest.mark.parametrize("options", [{"scheme": "prompt_disjoint"}, {"scheme": "per_speaker", "prompts": "disjoint"}])
def test_no_prompt_stands_in_two_parts_whatever_its_case(options):
    columns = corpus()
    columns["text"] = [text.upper() if row % 2 else f" {text}" for row, text in enumerate(columns["text"])]
    parts = splits.assign(columns, **SHARED, **options)
    table = splits.leakage(columns | {"split": parts})
    assert {row["shared"] for row in table if row["what"] == "prompt"} == {0}
    assert set(parts) == {"train", "dev", "test"}
    control = splits.leakage(columns | {"split": splits.assign(columns, scheme="per_speaker")})
    assert max(row["shared"] for row in control if row["what"] == "prompt") > 0


@pytest.mark.parametrize("speakers", [3, 4, 6, 25])
@pytest.mark.parametrize("stratify", [False, True])
def test_no_speaker_stands_in_two_parts_and_no_part_is_empty(speakers, stratify):
    columns = corpus(speakers=speakers)
    for seed in range(20):
        parts = splits.assign(columns, scheme="speaker_disjoint", seed=seed, stratify=stratify)
        assert set(parts) == {"train", "dev", "test"}
        table = splits.leakage(columns | {"split": parts})
        assert {row["shared"] for row in table if row["what"] == "speaker"} == {0}


def test_stratifying_puts_every_large_cohort_in_every_part():
    columns = corpus(speakers=21, each=3)
    for seed in range(20):
        parts = splits.assign(columns, scheme="speaker_disjoint", seed=seed, stratify=True)
        assert len(set(zip(columns["cohort"], parts, strict=True))) == 9


def test_named_speakers_go_where_they_are_sent():
    columns = corpus()
    parts = splits.assign(columns, scheme="speaker_disjoint", test_speakers=("p1", "p2"), dev_speakers=("p5",))
    where = dict(zip(columns["speaker"], parts, strict=True))
    assert {name for name in where if where[name] == "test"} == {"p1", "p2"}
    assert {name for name in where if where[name] == "dev"} == {"p5"}


def test_held_out_cohorts_are_test_and_nothing_else_is():
    columns = corpus()
    parts = splits.assign(columns, scheme="cohort_heldout", test_cohorts=("c1",))
    for cohort, part in zip(columns["cohort"], parts, strict=True):
        assert (part == "test") == (cohort == "c1")
    assert "dev" in parts


@pytest.mark.parametrize("dev_by", ["utterance", "speaker"])
def test_official_parts_are_kept_and_dev_is_carved_from_train_only(dev_by):
    columns = corpus()
    columns["split"] = ["test" if name in ("p1", "p2") else "Training" for name in columns["speaker"]]
    parts = splits.assign(columns, scheme="official", dev_by=dev_by)
    assert [part == "test" for part in parts] == [given == "test" for given in columns["split"]]
    dev = {name for name, part in zip(columns["speaker"], parts, strict=True) if part == "dev"}
    train = {name for name, part in zip(columns["speaker"], parts, strict=True) if part == "train"}
    assert dev and train and (not dev & train) == (dev_by == "speaker")
    columns["split"][0] = "validation"
    assert splits.assign(columns, scheme="official").count("dev") == 1


def test_unseen_speakers_are_a_share_of_every_cohort_and_stay_when_others_come():
    columns = corpus(speakers=12, cohorts=3)
    chosen = splits.unseen(columns, share=0.25)
    assert collections.Counter(int(name[1:]) % 3 for name in chosen) == {0: 1, 1: 1, 2: 1}
    assert splits.unseen(pick(columns, range(len(columns["id"]))[::-1]), share=0.25) == chosen
    assert splits.unseen(columns, names=("p3",), share=0.25) > {"p3"}
    assert splits.unseen(columns) == set()


def test_the_sample_is_a_stable_part_of_train_with_every_speaker():
    columns = corpus(speakers=30, each=20)
    columns["split"] = splits.assign(columns, scheme="per_speaker")
    chosen = splits.sample(columns, share=0.2)
    assert {part for part, mark in zip(columns["split"], chosen, strict=True) if mark} == {"train"}
    assert 0.15 < sum(chosen) / columns["split"].count("train") < 0.25
    assert {name for name, mark in zip(columns["speaker"], chosen, strict=True) if mark} == set(columns["speaker"])
    # Not by the number that chose the part: that would make the sample the neighbours of dev.
    numbers = [splits.unit(0, "utterance", i) for i, mark in zip(columns["id"], chosen, strict=True) if mark]
    assert max(numbers) > 0.9


def test_leakage_counts_are_right():
    columns = {
        "id": ["1", "2", "3", "4"],
        "speaker": ["a", "b", "a", ""],
        "text": ["yes", "no", "Yes", "no"],
        "prompt": ["", "", "", ""],
        "split": ["train", "train", "test", "test"],
    }
    table = {(r["part"], r["other"], r["what"]): r for r in splits.leakage(columns, ["x", "y", "x", "z"])}
    row = table["test", "train", "speaker"]
    assert (row["distinct"], row["shared"], row["share"], row["utterances"]) == (1, 1, 1.0, 1)
    assert table["test", "train", "prompt"]["utterances"] == 2
    assert table["test", "train", "recording"]["shared"] == 1
    assert table["test", "train", "id"]["shared"] == 0
    assert table["dev", "train", "speaker"]["distinct"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheme": "speakers"}, "known: per_speaker"),
        ({"scheme": "per_speaker", "test_speakers": ("p1",)}, "no option 'test_speakers'"),
        ({"scheme": "per_speaker", "prompts": "unique"}, "known: shared, disjoint"),
        ({"scheme": "per_speaker", "fractions": (0.8, 0.3, 0.1)}, "add up to 1"),
        ({"scheme": "speaker_disjoint", "test_speakers": ("p99",)}, "no speaker 'p99'.* it has p0, p1"),
        ({"scheme": "speaker_disjoint", "test_speakers": ("p1",), "dev_speakers": ("p1",)}, "'p1' stands in"),
        ({"scheme": "cohort_heldout"}, "needs test_cohorts; the corpus has c0, c1, c2"),
        ({"scheme": "cohort_heldout", "test_cohorts": ("x",)}, "no cohort 'x'"),
        ({"scheme": "official"}, "'p0-u0' has split ''"),
    ],
)
def test_errors_name_the_thing_and_what_is_valid(options, words):
    with pytest.raises(ValueError, match=words):
        splits.assign(corpus(), **options)


@pytest.mark.parametrize(
    "options, word", [({"names": ("x",)}, "'x'"), ({"share": 1.0}, "0 <= share"), ({"share": 0.9}, "none of its")]
)
def test_unseen_speakers_that_cannot_be(options, word):
    with pytest.raises(ValueError, match=word):
        splits.unseen(corpus(), **options)


def test_speaker_schemes_refuse_a_corpus_without_speakers():
    with pytest.raises(ValueError, match="480 of 480 have none"):
        splits.assign(corpus() | {"speaker": [""] * 480}, scheme="speaker_disjoint")
