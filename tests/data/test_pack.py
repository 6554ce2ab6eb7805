"""Windows of joined utterances: the format of their targets, that the times are where the sound is, and determinism."""

import collections
import dataclasses
import pickle
import re

import numpy as np
import pytest

from moejax.data.pack import Packer, Recipe, WindowPlan
from moejax.data.pipeline import loader
from moejax.speech.background import KINDS, background
from moejax.text.tokenizer import Tokenizer

RATE, STEP = 16000, 320  # samples of a second, and of a step of time
WORDS = ["ba", "do", "ki", "mu"]
ROWS = 40
QUIET = dict(noise=0.0, nospeech=0.0)
TIME = r"<\|\d+\.\d\d\|>"
TEXT = r"(?: (?:ba|do|ki|mu))+"
TARGET = re.compile(
    r"^<\|startoftranscript\|>(?:<\|nospeech\|>|<\|en\|><\|transcribe\|>(?:<\|notimestamps\|>(?:" + TEXT + r")?|"
    rf"(?:{TIME}{TEXT}{TIME})*(?:{TIME})?))<\|endoftext\|>$"
)


@dataclasses.dataclass(frozen=True)
class Levels:
    """Audio of a row: a constant that names it. A real class, so that it pickles for loader processes."""

    samples: tuple

    def __call__(self, row):
        return np.full(self.samples[row], level(row), np.float32)


def level(row):
    return np.float32((row + 1) / 64)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([" ".join(WORDS)] * 3, 2000, languages=("en",), timestamps_seconds=30)


@pytest.fixture(scope="module")
def make(tokenizer):
    """`make(window=seconds, seed=0, **recipe) -> Packer` of 40 utterances of 0.2 to 1 s by four speakers."""
    rng = np.random.default_rng(1)
    samples = tuple(int(n) for n in rng.integers(RATE // 5, RATE, ROWS))
    texts = [" ".join(rng.choice(WORDS, 1 + row % 3)) for row in range(ROWS)]

    def packer(window=6.0, seed=0, room=448, samples=samples, texts=texts, **recipe):
        speakers = [f"speaker {row % 4}" for row in range(len(samples))]
        return Packer(
            audio=Levels(samples),
            samples=samples,
            texts=texts,
            speakers=speakers,
            tokenizer=tokenizer,
            language="en",
            window=round(window * RATE),
            room=room,
            recipe=Recipe(**recipe),
            seed=seed,
        )

    return packer


def spelled(tokenizer, packer, window):
    """(prompt, target) of a window as text."""
    ids, given = packer.tokens(window)
    at = len(window.prompt)
    assert given > at and ids[at] == tokenizer.sot and tokenizer.sot not in ids[:at] + ids[at + 1 :]
    return tuple(tokenizer.decode(part, skip_special=False, strip=False) for part in (ids[:at], ids[at:]))


def times(text):
    return [float(t) for t in re.findall(r"<\|(\d+\.\d\d)\|>", text)]


def test_every_target_is_a_sentence_of_the_published_format(tokenizer, make):
    packer = make(nospeech=0.2, empty=0.5, plain=0.3)
    for number in range(300):
        window = packer.draw(number)
        prompt, target = spelled(tokenizer, packer, window)
        assert TARGET.match(target), target
        said = times(target)
        assert said == sorted(said) and all(0 <= t <= 6 for t in said)
        assert (window.kind == "nospeech") == ("<|nospeech|>" in target)
        assert (window.kind == "plain") == ("<|notimestamps|>" in target)
        if prompt:
            assert prompt.startswith("<|startofprev|>") and not {"<|endoftext|>", "<|en|>"} & set(prompt)


def test_the_sound_of_an_utterance_lies_between_its_times(tokenizer, make):
    packer = make(plain=0.0, prompt=0.0, **QUIET)
    cut = 0
    for number in range(100):
        window = packer.draw(number)
        wave, said = packer.wave(window), times(spelled(tokenizer, packer, window)[1])
        silent = np.ones(len(wave), bool)
        for piece in window.pieces:
            start = said.pop(0)
            end = said.pop(0) if piece.whole else len(wave) / RATE
            assert abs(start * RATE - piece.start) <= STEP / 2 and abs(end * RATE - piece.start - piece.samples) <= STEP
            np.testing.assert_allclose(wave[piece.start : piece.start + piece.samples], level(piece.row))
            silent[piece.start : piece.start + piece.samples] = False
            cut += not piece.whole
        assert not said and not wave[silent].any()
    assert cut > 10


def test_only_so_many_utterances_are_written_and_the_next_begins_where_the_last_time_says(tokenizer, make):
    packer, longer = make(plain=0.0, most=2, **QUIET), 0
    for number in range(100):
        window = packer.draw(number)
        said = times(spelled(tokenizer, packer, window)[1])
        written = [piece for piece in window.pieces[:2] if piece.whole]
        starts = [piece.start / RATE for piece in window.pieces[:3]]
        np.testing.assert_allclose(said[: 2 * len(written) : 2] + said[2 * len(written) :], starts, atol=0.011)
        heard = packer.wave(window)
        longer += any(heard[piece.start + 10] != 0 for piece in window.pieces[3:])
    assert longer > 30 and packer.length < make(plain=0.0, **QUIET).length
    plain = make(plain=1.0, most=2, **QUIET)
    assert all(len(plain.draw(number).pieces) <= 2 for number in range(50))


def test_texts_stand_in_the_order_in_which_they_are_heard(tokenizer, make):
    for plain in (0.0, 1.0):
        packer = make(plain=plain, **QUIET)
        for window in map(packer.draw, range(60)):
            heard = " ".join(packer.texts[piece.row] for piece in window.pieces if piece.whole)
            target = spelled(tokenizer, packer, window)[1]
            assert re.sub(r"<[^>]*>", "", target).split() == heard.split()


def test_without_times_a_cut_utterance_is_neither_heard_nor_written(tokenizer, make):
    packer = make(plain=1.0, cut=1.0, full=1.0, **QUIET)
    cut = 0
    for window in map(packer.draw, range(50)):
        wave, last = packer.wave(window), window.pieces[-1]
        if not last.whole:
            cut += 1
            assert not wave[last.start :].any() and wave[: last.start].any()
    assert cut > 10


def test_every_utterance_begins_one_window_of_an_epoch_and_epochs_differ(make):
    packer = make(nospeech=0.0)
    orders = [[packer.draw(epoch * ROWS + i).pieces[0].row for i in range(ROWS)] for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(ROWS)) and orders[0] != orders[1]


def test_a_window_has_one_speaker_and_no_utterance_twice_unless_anybody_may_speak(make):
    for one in (True, False):
        packer, mixed = make(window=12.0, one_speaker=one), 0
        for window in map(packer.draw, range(60)):
            rows = [piece.row for piece in window.pieces]
            assert len(set(rows)) == len(rows)
            mixed += len({row % 4 for row in rows}) > 1
        assert (mixed == 0) is one


def test_what_is_scored_is_all_from_the_start_token_on_and_never_the_prompt(tokenizer, make):
    packer = make(nospeech=0.2, empty=0.5, prompt=0.5, prompt_tokens=20)
    numbers = np.arange(80)
    batch = packer(packer.window, numbers)
    assert batch.score_BL.sum(1).max() <= packer.scored
    for b, number in enumerate(numbers):
        window = packer.draw(number)
        ids, given = packer.tokens(window)
        scored = batch.targets_BL[b][batch.score_BL[b]].tolist()
        assert scored == ids[given:] and scored[-1] == tokenizer.eot and batch.score_BL[b].sum() == len(ids) - given
        assert batch.tokens_BL[b, : len(ids) - 1].tolist() == ids[:-1]
        first = tokenizer.language_id("en")
        # The empty kind leaves the start token alone, so that <|nospeech|> keeps all of its probability.
        first = {"nospeech": tokenizer.no_speech, "empty": tokenizer.timestamp_begin}.get(window.kind, first)
        assert scored[0] == first


def test_tokens_fit_the_model_and_the_batch(make):
    for room, most in ((448, 223), (64, 20)):
        texts = [" ".join(WORDS * (most // 20))] * ROWS  # a speaker has enough to fill a prompt
        packer = make(window=30.0, prompt=0.8, prompt_tokens=most, room=room, texts=texts)
        assert packer.length <= room
        longest = 0
        for window in map(packer.draw, range(200)):
            ids, given = packer.tokens(window)
            assert len(window.prompt) <= most + 1 and len(ids) - 1 <= packer.length
            assert len(ids) - given <= packer.scored
            longest = max(longest, len(window.prompt))
        assert longest > most * 0.9


def test_prompts_hold_other_utterances_of_the_speaker(tokenizer, make):
    texts = [chr(ord("a") + row // 4) + str(row % 4) for row in range(ROWS)]
    packer = make(texts=texts, prompt=1.0, prompt_tokens=12, window=3.0)
    timed = 0
    for window in map(packer.draw, range(60)):
        prompt, target = spelled(tokenizer, packer, window)
        words = re.sub(r"<[^>]*>", " ", prompt).split()[1:]  # the first may be cut
        assert set(words) <= set(texts) and not set(words) & set(re.sub(r"<[^>]*>", " ", target).split())
        assert {word[1] for word in words} <= {str(window.pieces[0].row % 4)} if window.pieces else True
        timed += bool(times(prompt))
        assert window.kind != "plain" or not times(prompt)
    assert 5 < timed < 50


def test_shares_are_met(make):
    packer = make(nospeech=0.1, empty=0.5, plain=0.25, prompt=0.4, full=1.0, cut=0.5)
    windows = [packer.draw(number) for number in range(2000)]
    kinds = collections.Counter(window.kind for window in windows)
    share = {kind: count / 2000 for kind, count in kinds.items()}
    assert share == pytest.approx({"nospeech": 0.05, "empty": 0.05, "plain": 0.225, "times": 0.675}, abs=0.03)
    assert np.mean([bool(window.prompt) for window in windows]) == pytest.approx(0.4, abs=0.03)
    cut = np.mean([not window.pieces[-1].whole for window in windows if window.pieces])
    assert 0.15 < cut < 0.35  # at times nobody is speaking when the window ends


def test_a_share_begins_with_speech_at_once(make):
    starts = [packer.draw(i).pieces[0].start for packer in [make(abrupt=0.3, nospeech=0.0)] for i in range(1000)]
    assert starts.count(0) / 1000 == pytest.approx(0.3, abs=0.04) and max(starts) > 0.9 * RATE


def test_speed_moves_the_times_along(tokenizer, make):
    packer = make(speed=0.2, plain=0.0, **QUIET)
    speeds = []
    for window in map(packer.draw, range(50)):
        wave = packer.wave(window)
        speeds.append(window.speed)
        for piece in window.pieces:
            if piece.whole:
                assert piece.samples == pytest.approx(packer.samples[piece.row] / window.speed, abs=1)
                assert wave[piece.start : piece.start + piece.samples].min() > 0
    assert min(speeds) < 0.85 and max(speeds) > 1.15


def test_windows_are_the_same_again_whatever_was_drawn_before_and_differ_by_seed(make):
    one, other = make(), make()
    for number in (7, 93, 7, 41):
        assert one.draw(number) == other.draw(number)
    assert pickle.loads(pickle.dumps(one)).draw(93) == one.draw(93)
    assert make(seed=1).draw(7) != one.draw(7)
    np.testing.assert_array_equal(one.wave(one.draw(5)), other.wave(other.draw(5)))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_is_the_same_for_any_number_of_workers_and_resumes(make, workers):
    packer = make(window=2.0)
    plan = WindowPlan(packer.window, 3, multiple=2)
    assert plan[0][1].tolist() == [0, 1, 2, 3] and plan[5][1].tolist() == [20, 21, 22, 23]
    batches = loader(plan, packer, workers=workers)
    try:
        first = [next(batches) for _ in range(3)]
        state = batches.get_state()
        next(batches)
        batches.set_state(state)
        again = next(batches)
    finally:
        batches.close()
    for number, batch in enumerate([*first, again]):
        wanted = packer(*plan[number])
        for name, value in vars(batch).items():
            np.testing.assert_array_equal(value, getattr(wanted, name), err_msg=name)


def test_windows_without_speech_hold_every_kind_of_background_and_no_utterance(make):
    packer = make(nospeech=1.0)
    power = [float(np.std(packer.wave(packer.draw(number)))) for number in range(40)]
    assert 2 < power.count(0.0) < 25 and max(power) > 3e-3
    for kind in KINDS:
        wave = background(np.random.default_rng(0), 20 * RATE, kind, 0.1)
        assert wave.shape == (20 * RATE,) and wave.dtype == np.float32
        assert np.std(wave) == pytest.approx(0.0 if kind == "silence" else 0.1, rel=0.1)
    with pytest.raises(ValueError, match="unknown background 'rain'; known: silence, white"):
        background(np.random.default_rng(0), 9, "rain", 0.1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(plain=1.2), "pack.plain is 1.2; a share lies between 0 and 1"),
        (dict(gap=(1.0, 0.5)), "pack.gap is"),
        (dict(noise_level=(0.0, 0.1)), "noise_level"),
        (dict(speed=0.7), "pack.speed"),
        (dict(window=0.5), "row . has .* samples; windows of 8000"),
        (dict(window=31.0), "times end at 30 s"),
        (dict(room=30), "needs .* tokens; beside a prompt the model has"),
        (dict(samples=()), "no utterances"),
    ],
)
def test_what_cannot_be_packed_is_said_in_one_line(make, change, words):
    with pytest.raises(ValueError, match=words) as error:
        make(**change)
    assert "\n" not in str(error.value)
