"""CTC against every path written out, and against optax."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moejax.ops import ctc

T, L, C = 7, 3, 4


def collapsed(path):
    return [label for label, _ in itertools.groupby(path) if label != ctc.BLANK]


def every_path(logp_TC, frames, labels):
    """(log probability, path) of each path of a text, by trying them all."""
    for path in itertools.product(range(C), repeat=frames):
        if collapsed(path) == labels:
            yield sum(logp_TC[t, label] for t, label in enumerate(path)), path


def spans_of(path):
    found, at = [], 0
    for label, group in itertools.groupby(path):
        length = len(list(group))
        if label != ctc.BLANK:
            found.append((at, at + length - 1))
        at += length
    return found


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    logp_BTC = np.asarray(jax.nn.log_softmax(2 * rng.standard_normal((6, T, C)), axis=-1), np.float32)
    texts = [[1, 2, 3], [2, 2, 1], [1, 1], [3], [], [2, 1, 2]]
    frames_B = np.array([7, 6, 5, 3, 4, 3], np.int32)
    labels_BL = np.array([text + [0] * (L - len(text)) for text in texts], np.int32)
    return logp_BTC, frames_B, labels_BL, np.array([len(text) for text in texts], np.int32), texts


def test_the_sum_and_the_best_of_all_paths(rows):
    logp_BTC, frames_B, labels_BL, count_B, texts = rows
    sum_B = ctc.log_likelihood(logp_BTC, frames_B, labels_BL, count_B)
    spans = jax.tree.map(np.asarray, ctc.align(logp_BTC, frames_B, labels_BL, count_B))
    for b, text in enumerate(texts):
        paths = list(every_path(logp_BTC[b], int(frames_B[b]), text))
        best, path = max(paths)
        np.testing.assert_allclose(sum_B[b], np.logaddexp.reduce([score for score, _ in paths]), atol=1e-5)
        np.testing.assert_allclose(spans.total_B[b], best, atol=1e-5)
        found = list(zip(spans.first_BL[b, : len(text)], spans.last_BL[b, : len(text)], strict=True))
        assert found == spans_of(path), text
        for (first, last), score, label in zip(found, spans.score_BL[b], text, strict=False):
            np.testing.assert_allclose(score, logp_BTC[b, first : last + 1, label].mean(), atol=1e-5)


def test_as_optax_and_with_its_gradient(rows):
    logp_BTC, frames_B, labels_BL, count_B, _ = rows
    late_BT = (np.arange(T) >= frames_B[:, None]).astype(np.float32)
    pad_BL = (np.arange(L) >= count_B[:, None]).astype(np.float32)

    def theirs(x):
        return optax.ctc_loss(x, late_BT, labels_BL, pad_BL).sum()

    def ours(x):
        return -ctc.log_likelihood(jax.nn.log_softmax(x, axis=-1), frames_B, labels_BL, count_B).sum()

    np.testing.assert_allclose(ours(logp_BTC), theirs(logp_BTC), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(logp_BTC), jax.grad(theirs)(logp_BTC), atol=1e-4)


def test_a_text_with_no_path_is_seen_and_has_a_finite_gradient():
    logp_BTC = jnp.log(jnp.full((1, 2, C), 1 / C))
    labels_BL, two = np.array([[1, 1]], np.int32), np.array([2], np.int32)  # takes three frames: a blank between
    assert ctc.needed([1, 1]) == 3
    assert float(ctc.align(logp_BTC, two, labels_BL, two).total_B[0]) < ctc.NEVER / 2
    gradient = jax.grad(lambda x: ctc.log_likelihood(x, two, labels_BL, two).sum())(logp_BTC)
    assert np.isfinite(np.asarray(gradient)).all()
