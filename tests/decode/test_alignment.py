import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.decode.alignment import Aligner, Asked, upper_heads
from moejax.decode.alignment_heads import PUBLISHED, of_size
from moejax.decode.results import Decoding
from moejax.decode.segments import Draft
from moejax.decode.words import Timing, add_words, merge_punctuations, split_words, timings
from moejax.nn import functional, inject
from moejax.nn.attention_scores import cross_scores
from moejax.nn.variables import Init
from moejax.nn.whisper import SIZES, Whisper, WhisperConfig
from moejax.text.tokenizer import Tokenizer
from moejax.types import Route


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["one two, three four.", "Grüße an alle!", "five (six) seven"] * 3
    return Tokenizer.train(texts, 1900, languages=("en", "zh"), timestamps_seconds=30)


@pytest.fixture(scope="module")
def network(tokenizer):
    """(graphdef, params, config) of a random network of two decoder layers with three experts."""
    config = WhisperConfig(16, 1, 2, 2, 2, 32, 32, tokenizer.vocab_size, max_source_positions=20, mask_padding=True)

    def build():
        model, init = Whisper(config, init=Init(0)), Init(1)
        inject.add_experts(
            model, ("decoder/*/q", "decoder/*/v", "decoder/*/fc1"), num_experts=3, rank=2, alpha=4.0, init=init
        )
        return model

    graphdef, abstract = functional.abstract(build)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32), abstract)
    return graphdef, params, config


def encoded(frames=(20, 13, 7), seed=2):
    states_BTD = jax.random.normal(jax.random.key(seed), (len(frames), 20, 16))
    route = Route(jnp.asarray(np.eye(3, dtype=np.float32)[: len(frames)]))
    mask_BT = jnp.arange(20)[None] < jnp.asarray(frames)[:, None]
    return types.SimpleNamespace(states_BTD=states_BTD, mask_BT=mask_BT, route=route)


def row(batch, b):
    return types.SimpleNamespace(
        states_BTD=batch.states_BTD[b : b + 1],
        mask_BT=batch.mask_BT[b : b + 1],
        route=Route(batch.route.weight_BX[b : b + 1]),
    )


def flat(words):
    return [(word.word, word.start, word.end) for word in words]


def probabilities(network, batch, prefix, ids):
    """Of each of the ids behind the prefix and those before it, among text tokens."""
    model, eot = functional.merge(*network[:2]), prefix[0] - 1
    logits = model.decode(jnp.asarray([[*prefix, *ids]]), batch.states_BTD, batch.mask_BT, batch.route)
    prob = np.asarray(jax.nn.softmax(logits[0, :, :eot], axis=-1))
    return [prob[len(prefix) - 1 + i, id] for i, id in enumerate(ids)]


def test_published_heads_exist_in_their_networks():
    for name, heads in PUBLISHED.items():
        size = SIZES["large" if name == "large-v1" else "large-v3-turbo" if name == "turbo" else name]
        assert set(heads) <= {(i, j) for i in range(size.decoder_layers) for j in range(size.decoder_heads)}
        assert of_size(size) == (None if size == SIZES["large-v2"] else heads)  # as large as large-v1
    assert of_size(SIZES["micro"]) is None
    assert upper_heads(SIZES["tiny"]) == [(layer, head) for layer in (2, 3) for head in range(6)]


def test_scores_are_those_the_decoder_uses(network):
    """Equal states prove the forward pass, and attention made of the scores proves the scores."""
    graphdef, params, _ = network
    model, batch = functional.merge(graphdef, params), encoded()
    tokens_BL = jnp.asarray(np.random.default_rng(0).integers(0, 300, (3, 9)))
    heads = [(1, 1), (0, 0), (1, 0)]
    scores, x = cross_scores(model, tokens_BL, batch.states_BTD, heads, batch.mask_BT, batch.route)
    logits = model.decode(tokens_BL, batch.states_BTD, batch.mask_BT, batch.route)
    np.testing.assert_allclose(model.decoder.logits(x), logits, atol=1e-4)
    block, h = model.decoder.layers[0], model.decoder.inputs(tokens_BL)
    normal = block.self_attn_norm(h)
    kv = block.self_attn.keys_values(normal, batch.route)
    h = h + block.self_attn(normal, kv, causal=True, route=batch.route)
    _, values = block.cross_attn.keys_values(batch.states_BTD, batch.route)
    both, _ = cross_scores(model, tokens_BL, batch.states_BTD, [(0, 0), (0, 1)], batch.mask_BT, batch.route)
    np.testing.assert_array_equal(both[:, 0], scores[:, 1])
    weight = jax.nn.softmax(jnp.where(batch.mask_BT[:, None, None], both, -jnp.inf), axis=-1)
    mixed = block.cross_attn.out(jnp.einsum("BHLT,BTHK->BLHK", weight, values).reshape(h.shape), batch.route)
    kv = block.cross_attn.keys_values(batch.states_BTD, batch.route)
    np.testing.assert_allclose(block.cross(h, kv, batch.mask_BT, batch.route), h + mixed, atol=1e-4)
    with pytest.raises(ValueError, match=r"no attention heads \[\(2, 0\)\]; layers 0..1, heads 0..1"):
        cross_scores(model, tokens_BL, batch.states_BTD, [(2, 0)])


def test_words_of_a_row_do_not_depend_on_its_neighbours_and_follow_its_route(network, tokenizer):
    graphdef, params, config = network
    aligner, batch = Aligner(graphdef, params, config, tokenizer), encoded()
    asked = [
        Asked(tokenizer.encode("one two, three"), "en", 40),
        None,
        Asked(tokenizer.encode("five (six) seven four. one two three four five"), "zh", 14),
    ]
    together = aligner(batch, asked)
    assert together[1] == [] and "".join(word.word for word in together[0]) == " one two, three"
    for b in (0, 2):
        alone = aligner(row(batch, b), [asked[b]])[0]
        assert flat(alone) == flat(together[b])
        np.testing.assert_allclose([w.probability for w in alone], [w.probability for w in together[b]], rtol=1e-4)
        assert all(0 <= word.start <= word.end <= asked[b].frames * 0.01 for word in alone)
    swapped = types.SimpleNamespace(**{**vars(batch), "route": Route(batch.route.weight_BX[::-1])})
    assert flat(aligner(swapped, asked)[0]) != flat(together[0])
    assert aligner(batch, [None] * 3) == [[], [], []]


@pytest.mark.parametrize("over", [0, 1, 2, 30, 200])
def test_a_text_that_the_decoder_has_no_room_for_is_read_in_parts(network, tokenizer, over):
    graphdef, params, config = network
    small = dataclasses.replace(config, max_target_positions=32)  # of the same network
    prefix, batch = tokenizer.prefix("en"), encoded()
    room, said = 32 - len(prefix) - 1, tokenizer.encode("one two, three four. five (six) seven ")
    ids = (said * 20)[: room + over]
    short = Asked(said, "en", 26)
    words, neighbour = Aligner(graphdef, params, small, tokenizer)(batch, [Asked(ids, "en", 40), short, None])[:2]
    assert [token for word in words for token in word.tokens] == ids  # none is lost
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= 0.4
    assert flat(neighbour) == flat(Aligner(graphdef, params, config, tokenizer)(batch, [None, short, None])[1])
    # Teacher forcing: what fits, as it is; the first token that does not, behind as much as fits.
    first, later = (probabilities(network, row(batch, 0), prefix, part) for part in (ids[:room], ids[-room:]))
    each = first if over == 0 else [*first, *later[-over:]]
    if over <= room // 2:
        bounds = np.cumsum([0, *(len(word.tokens) for word in words)])
        expected = [np.mean(each[i:j]) for i, j in zip(bounds[:-1], bounds[1:], strict=True)]
        np.testing.assert_allclose([word.probability for word in words], expected, rtol=1e-3)


def test_probabilities_are_those_of_teacher_forcing(network, tokenizer):
    graphdef, params, config = network
    batch, ids = row(encoded(), 0), tokenizer.encode("one two, three")
    words = Aligner(graphdef, params, config, tokenizer)(batch, [Asked(ids, "en", 40)])[0]
    each = probabilities(network, batch, tokenizer.prefix("en"), ids)
    bounds = np.cumsum([0, *(len(word.tokens) for word in words)])
    expected = [np.mean(each[i:j]) for i, j in zip(bounds[:-1], bounds[1:], strict=True)]
    np.testing.assert_allclose([word.probability for word in words], expected, rtol=1e-3)


def test_times_are_where_the_attention_lies(tokenizer):
    ids = tokenizer.encode("one two, three")
    words, groups = split_words(tokenizer, ids, "en")
    weight_LT = np.full((len(ids) + 1, 100), -1.0)
    edges = np.linspace(10, 100, len(ids) + 1).astype(int)
    weight_LT[0, :10] = 1.0
    for i, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        weight_LT[i + 1, start:stop] = 1.0
    found = timings(weight_LT, [0.5] * len(ids), ids, tokenizer, "en", seconds_per_frame=0.02)
    assert [word.word for word in found] == words and [word.tokens for word in found] == groups
    # The first row is the no-timestamps token: as in the reference, the first word starts with it.
    assert found[0].start == 0.0 and found[-1].end == edges[-2] * 0.02
    assert timings(weight_LT[:1], [], [], tokenizer, "en", seconds_per_frame=0.02) == []


def test_words_are_whole_characters_and_lose_nothing(tokenizer):
    ids = [*tokenizer.encode("Grüße (an) alle, 你好!"), tokenizer.eot]
    for language in ("en", "zh"):
        words, groups = split_words(tokenizer, ids, language)
        assert sum(groups, []) == ids and "".join(words) == " Grüße (an) alle, 你好!<|endoftext|>"
        assert "\ufffd" not in "".join(words)
    spaced, _ = split_words(tokenizer, ids, "en")
    assert spaced[0] == " Grüße" and "," in spaced and "!" in spaced
    assert "你" in split_words(tokenizer, ids, "zh")[0]
    # Half a character before the end is not kept, as in the reference.
    broken = tokenizer.encode("an 你")[:-1]
    assert split_words(tokenizer, [*broken, tokenizer.eot], "en")[0][0] == " an"


def timed(*texts, each=0.3):
    return [Timing(text, [i], i * each, (i + 1) * each, 0.9) for i, text in enumerate(texts)]


def test_punctuation_joins_its_word():
    words = timed(" he", " said", ",", ' "', "go", '"', "!")
    merge_punctuations(words)
    assert [word.word for word in words if word.word] == [" he", " said,", ' "go"!']
    assert [word.tokens for word in words if word.word] == [[0], [1, 2], [3, 4, 5, 6]]


def drafts(*spans):
    found = Decoding([], "", "en", 0.0, 0.0, 0.0, 1.0)
    return [Draft(0, start, end, tokens, "x", found) for start, end, tokens in spans]


def test_segments_take_the_times_of_their_words():
    segments = drafts((10.0, 11.0, [0, 1]), (11.0, 12.0, [2]))
    add_words(segments, timed(" a", " b", " c"), eot=100, offset=10.0, last_speech=10.0)
    assert [[word.word for word in segment.words] for segment in segments] == [[" a", " b"], [" c"]]
    assert [(segment.start, segment.end) for segment in segments] == [(10.0, 10.6), (10.6, 10.9)]


def test_a_long_word_is_cut_at_a_sentence_end_and_after_a_pause():
    words = timed(" a", ".", " b", " c")
    words[2].start, words[2].end = 0.6, 5.0
    words[3].start, words[3].end = 5.0, 5.3
    segments = drafts((0.0, 5.3, [0, 1, 2, 3]))
    add_words(segments, words, eot=100, offset=0.0, last_speech=0.0)
    assert [(word.start, word.end) for word in segments[0].words][1] == (4.4, 5.0)
    words = timed(" a", " b", " c")
    words[0].start, words[0].end = 0.0, 9.0
    words[1].start, words[1].end, words[2].start, words[2].end = 9.0, 9.3, 9.3, 9.6
    segments = drafts((8.8, 9.6, [0, 1, 2]))
    add_words(segments, words, eot=100, offset=0.0, last_speech=0.0)
    assert segments[0].words[0].start == pytest.approx(8.4) == segments[0].start
