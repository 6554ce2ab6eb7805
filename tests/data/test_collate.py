import numpy as np
import tiny_whisper as tiny

WORDS = [[1, 2, 3], [4], [5] * 9, [6, tiny.EOT + 0, 7]]


def made(rows=(0, 1, 2, -1, 3), **options):
    samples = [9000, 5000, 8000, 10240]
    return tiny.collator(4, words=WORDS, samples=samples, **options)(tiny.BUCKET, np.asarray(rows))


def test_every_target_has_exactly_one_end_token_and_it_is_scored():
    batch = made((0, 1, 2))
    for targets, score, words in zip(batch.targets_BL, batch.score_BL, WORDS, strict=False):
        assert targets[score].tolist() == words + [tiny.EOT]
        assert np.flatnonzero(score & (targets == tiny.EOT)).tolist() == [len(tiny.PREFIX) - 1 + len(words)]


def test_decoder_input_is_the_target_shifted_and_starts_with_the_prefix():
    batch = made((0, 1, 2))
    for tokens, targets, words in zip(batch.tokens_BL, batch.targets_BL, WORDS, strict=False):
        size = len(tiny.PREFIX) + len(words)
        assert tokens[:size].tolist() == tiny.PREFIX + words
        assert targets[: size - 1].tolist() == tokens[1:size].tolist()


def test_padding_is_never_scored_though_it_looks_like_the_end_token():
    batch = made((0, 1, 2))
    for b, words in enumerate(WORDS[:3]):
        end = len(tiny.PREFIX) + len(words)
        assert not batch.score_BL[b, end:].any() and (batch.targets_BL[b, end:] == tiny.EOT).all()
        assert not batch.score_BL[b, : len(tiny.PREFIX) - 1].any()
    assert batch.score_BL.sum() == sum(len(words) + 1 for words in WORDS[:3])


def test_scoring_goes_by_position_even_when_the_text_holds_the_end_token():
    batch = made((3,))
    assert batch.targets_BL[0][batch.score_BL[0]].tolist() == WORDS[3] + [tiny.EOT]


def test_filler_rows_are_scored_nowhere_and_belong_to_nobody():
    batch = made()
    assert batch.real_B.tolist() == [True, True, True, False, True]
    assert not batch.score_BL[3].any() and not batch.audio_BS[3].any() and not batch.gate_in_BU[3].any()
    assert (batch.label_B[3], batch.samples_B[3]) == (-1, 1)  # one sample: no attention mask is empty


def test_audio_is_padded_with_zeros_and_its_length_kept():
    batch = made()
    assert batch.samples_B.tolist() == [9000, 5000, 8000, 1, 10240]
    for b, row in ((0, 0), (1, 1), (4, 3)):
        wave = tiny.wave(row, batch.samples_B[b])
        np.testing.assert_array_equal(batch.audio_BS[b, : len(wave)], wave)
        assert not batch.audio_BS[b, len(wave) :].any()


def test_labels_cohorts_and_gate_inputs_follow_their_rows():
    gate_in = np.arange(4 * tiny.U, dtype=np.float32).reshape(4, tiny.U)
    batch = made((3, 1), labels=[5, 6, 7, 8], cohorts=[0, 1, 2, 3], gate_in=gate_in)
    assert (batch.label_B.tolist(), batch.cohort_B.tolist()) == ([8, 6], [3, 1])
    np.testing.assert_array_equal(batch.gate_in_BU, gate_in[[3, 1]])


def test_a_bucket_has_one_shape_and_types_are_fixed():
    maker = tiny.collator(4, words=WORDS, samples=[9000, 5000, 8000, 10240])
    one, other = (maker(tiny.BUCKET, np.asarray(rows)) for rows in ((0, 1), (2, -1)))
    assert [np.shape(x) for x in vars(one).values()] == [np.shape(x) for x in vars(other).values()]
    batch = made()
    kinds = {name: str(value.dtype) for name, value in vars(batch).items() if value is not None}
    assert batch.states_BTD is None
    assert kinds == {
        "audio_BS": "float32",
        "samples_B": "int32",
        "tokens_BL": "int32",
        "targets_BL": "int32",
        "score_BL": "bool",
        "label_B": "int32",
        "gate_in_BU": "float32",
        "cohort_B": "int32",
        "real_B": "bool",
    }
    assert batch.tokens_BL.shape[1] % 8 == 0
