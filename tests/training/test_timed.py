"""Windows with times beside utterances alone: what is in them, when their batches come, whose audio they hold."""

import numpy as np
import pytest
import tiny_model

from moejax.audio.constants import SAMPLE_RATE
from moejax.data.pipeline import FILLER, BatchPlan
from moejax.decode import enrolled
from moejax.training import timed

TOKENIZER = tiny_model.tokenizer(True)
WINDOW, ROOM = 30 * SAMPLE_RATE, 96
GROUPS = [("ann", "a")] * 9 + [("bob", "b")] * 5 + [("", "a")] * 70
SAMPLES = np.random.default_rng(4).integers(2 * SAMPLE_RATE, 7 * SAMPLE_RATE, len(GROUPS))
TEXTS = [f"{'ba do ki mu'.split()[i % 4]} do" for i in range(len(GROUPS))]


def audio(i):
    """Utterance i is a level that tells which it is."""
    return np.full(SAMPLES[i], (i + 1) / 100, np.float32)


def windows_of(**options):
    return timed.join(
        audio=audio,
        samples=SAMPLES,
        texts=TEXTS,
        groups=GROUPS,
        tokenizer=TOKENIZER,
        language="en",
        window=WINDOW,
        room=ROOM,
        seed=3,
        **options,
    )


@pytest.fixture(scope="module")
def joined():
    return windows_of()


def test_every_utterance_is_heard_and_windows_have_one_group_and_several_utterances(joined):
    assert {row for heard in joined.members for row in heard} == set(range(len(GROUPS)))
    assert all(len({GROUPS[row] for row in heard}) == 1 for heard in joined.members)
    assert np.mean([len(heard) for heard in joined.members]) > 2.5 and len(joined) < len(GROUPS)


def test_the_text_of_a_window_stands_between_the_times_at_which_its_audio_is_heard(joined):
    batch = joined.collator()(WINDOW, np.arange(len(joined)))
    begin, several = TOKENIZER.timestamp_begin, 0
    for b, (window, heard) in enumerate(zip(joined.windows, joined.members, strict=True)):
        said = batch.targets_BL[b][batch.score_BL[b]].tolist()
        assert said[-1] == TOKENIZER.eot and said[0] == TOKENIZER.language_id("en")
        times = [(id - begin) * 0.02 for id in said if id >= begin]
        whole = [i for i, piece in enumerate(window.pieces) if piece.whole]
        for i in whole:
            middle = round((times[2 * i] + times[2 * i + 1]) / 2 * SAMPLE_RATE)
            assert batch.audio_BS[b, middle] == pytest.approx((heard[i] + 1) / 100, abs=1e-6)
        text = TOKENIZER.decode([id for id in said if id < begin])
        assert text.split() == " ".join(TEXTS[heard[i]] for i in whole).split()
        several += len(whole) > 1
    assert several > len(joined) / 2


def test_a_share_of_the_windows_is_what_decoding_puts_in_front_of_an_enrolled_speaker():
    made = windows_of(enrolled=0.6)
    batch, kinds, counts = made.collator()(WINDOW, np.arange(len(made))), set(), set()
    for b, (window, heard) in enumerate(zip(made.windows, made.members, strict=True)):
        if not window.enrolled:
            continue
        *phrases, last = heard
        context = enrolled.joined([audio(i) for i in phrases], [TEXTS[i] for i in phrases])
        given = TOKENIZER.prefix("en", timestamps=window.kind == "times")
        given += context.tokens(TOKENIZER, timed=window.kind == "times")
        first = int(np.argmax(batch.score_BL[b]))
        assert batch.tokens_BL[b, : first + 1].tolist() == given and {GROUPS[i] for i in phrases} == {GROUPS[last]}
        said = [id for id in batch.targets_BL[b][batch.score_BL[b]].tolist() if id < TOKENIZER.timestamp_begin]
        assert said == [*TOKENIZER.encode(TEXTS[last]), TOKENIZER.eot]
        at = len(context.audio_S)
        np.testing.assert_array_equal(batch.audio_BS[b, :at], context.audio_S)
        np.testing.assert_array_equal(batch.audio_BS[b, at : at + SAMPLES[last]], audio(last))
        assert not batch.audio_BS[b, at + SAMPLES[last] :].any()
        kinds.add(window.kind)
        counts.add(len(phrases))
    share = np.mean([window.enrolled for window in made.windows])
    assert kinds == {"times", "plain"} and len(counts) > 3 and 0.5 < share < 0.9
    lasts = {heard[-1] for heard, window in zip(made.members, made.windows, strict=True) if window.enrolled}
    assert len(lasts) > len(GROUPS) / 2  # any utterance may be the one that is learnt


def test_windows_of_some_utterances_hold_no_others(joined):
    ann = joined.of(range(9))
    assert len(ann) and {row for heard in ann.members for row in heard} == set(range(9))
    assert ann.digest() != joined.digest() and not joined.of([0, 10])


def test_of_many_utterances_whole_groups_of_speakers_are_drawn(monkeypatch):
    monkeypatch.setattr(timed, "MOST", 500)
    speaker_N = np.random.default_rng(0).permutation(np.repeat([3, 0, 7, 1], [900, 30, 64, 65]))
    kept = timed._some(speaker_N, 0)
    assert 400 < len(kept) <= 500 and (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(kept, timed._some(speaker_N, 0))
    assert not np.array_equal(kept, timed._some(speaker_N, 1))
    for speaker in np.unique(speaker_N):
        own = np.flatnonzero(speaker_N == speaker)
        groups = [set(own[at : at + timed.TOGETHER]) for at in range(0, len(own), timed.TOGETHER)]
        assert all(group <= set(kept) or not group & set(kept) for group in groups)
    assert len(set(speaker_N[kept])) > 1 and kept[-1] > 800, "from all of the corpus"


def test_what_leaves_no_room_is_in_no_window():
    long = ["ba do ki mu " * 40, *TEXTS[1:]]
    options = {"audio": audio, "samples": SAMPLES, "groups": GROUPS, "tokenizer": TOKENIZER, "language": "en"}
    found = timed.join(texts=long, window=WINDOW, room=ROOM, seed=3, **options)
    assert 0 not in {row for heard in found.members for row in heard}
    assert timed.join(texts=long[:1] * len(TEXTS), window=WINDOW, room=ROOM, seed=3, **options) is None


def test_batches_of_windows_come_evenly_with_fewer_rows_and_say_whose_they_are(joined):
    alone = BatchPlan(lengths=SAMPLES, buckets=(WINDOW,), batch_size=8, seed=1)
    marks = []
    collate = joined.collator()
    plan, fetch = timed.beside(alone, lambda bucket, rows: marks.append(rows) or "alone", joined, collate, 0.25)
    batches = [plan[number] for number in range(200)]
    kinds = [bool(rows[0] >= len(GROUPS) or rows[0] == timed.NO_WINDOW) for _, rows in batches]
    assert kinds == [number % 4 == 3 for number in range(200)]
    assert {len(rows) for (_, rows), kind in zip(batches, kinds, strict=True) if kind} == {2}
    utterances = [rows for (_, rows), kind in zip(batches, kinds, strict=True) if not kind]
    np.testing.assert_array_equal(utterances, [alone[number][1] for number in range(150)])
    heard = {int(row) - len(GROUPS) for (_, rows), kind in zip(batches, kinds, strict=True) if kind for row in rows}
    assert set(range(len(joined))) <= heard
    assert fetch(*plan[0]) == "alone" and len(marks) == 1
    made = fetch(*plan[3])
    assert made.audio_BS.shape == (2, WINDOW) and made.real_B.all()
    filler = fetch(max(bucket for bucket, _ in batches[3::4]), np.array([timed.NO_WINDOW, len(GROUPS)]))
    assert filler.real_B.tolist() == [False, True] and filler.tokens_BL.shape[1] >= made.tokens_BL.shape[1]
    assert fetch(WINDOW, np.array([FILLER, FILLER])) == "alone"
    assert plan.names_of(3)[0].startswith("window of") and plan.names_of(0) == alone.names_of(0)
    windows_alone, _ = timed.beside(alone, fetch, joined, collate, 1.0)
    assert all(rows.max() >= len(GROUPS) for _, rows in (windows_alone[number] for number in range(50)))


def test_windows_of_few_words_stand_in_batches_of_their_own():
    texts = [text if i % 9 else " ".join(["mu"] * 40) for i, text in enumerate(TEXTS)]
    options = {"audio": audio, "samples": SAMPLES, "groups": list(range(len(GROUPS))), "tokenizer": TOKENIZER}
    joined = timed.join(texts=texts, window=WINDOW, room=ROOM, seed=3, language="en", **options)
    alone = BatchPlan(lengths=SAMPLES, buckets=(WINDOW,), batch_size=8, seed=1)
    plan, fetch = timed.beside(alone, None, joined, joined.collator(), 1.0)
    seen, whole = {}, joined.collator()(WINDOW, np.arange(len(joined)))
    for number in range(plan.joined.batches_per_epoch):
        bucket, rows = plan[number]
        batch = fetch(bucket, rows)
        assert batch.tokens_BL.shape[1] == bucket
        for b, row in enumerate(rows):
            if row != timed.NO_WINDOW:
                window = int(row) - len(SAMPLES)
                seen[window] = bucket
                np.testing.assert_array_equal(batch.audio_BS[b], whole.audio_BS[window])
                for name in ("tokens_BL", "targets_BL", "score_BL"):  # nothing of it is cut
                    one, all_of_it = getattr(batch, name)[b], getattr(whole, name)[window]
                    np.testing.assert_array_equal(one, all_of_it[:bucket])
                assert not whole.score_BL[window, bucket:].any()
    assert sorted(seen) == list(range(len(joined))) and len(set(seen.values())) == 2
    assert np.mean([bucket == min(seen.values()) for bucket in seen.values()]) >= 0.7
