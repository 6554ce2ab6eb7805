import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops import losses

RNG = np.random.default_rng(0)
LOGITS_BLV = jnp.asarray(RNG.normal(size=(3, 5, 7)), jnp.float32)
TARGETS_BL = jnp.asarray(RNG.integers(0, 7, (3, 5)))
SCORE_BL = jnp.asarray([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)


def test_cross_entropy_is_the_mean_over_scored_positions_only():
    mean, sum_B, count = losses.token_cross_entropy(LOGITS_BLV, TARGETS_BL, SCORE_BL)
    logp = np.asarray(jax.nn.log_softmax(LOGITS_BLV))
    each = [-logp[b, at, TARGETS_BL[b, at]] for b, at in zip(*np.nonzero(SCORE_BL), strict=True)]
    assert (int(count), len(each)) == (7, 7)
    np.testing.assert_allclose(mean, np.mean(each), rtol=1e-6)
    np.testing.assert_allclose(sum_B, [sum(each[:2]), sum(each[2:]), 0], rtol=1e-6)


def test_unscored_positions_have_neither_value_nor_gradient():
    def loss(logits):
        return losses.token_cross_entropy(logits, TARGETS_BL, SCORE_BL, smoothing=0.1)[0]

    grad_BL = np.abs(jax.grad(loss)(LOGITS_BLV)).max(-1)
    assert (grad_BL[~np.asarray(SCORE_BL)] == 0).all() and (grad_BL[np.asarray(SCORE_BL)] > 0).all()
    other = jnp.where(SCORE_BL, TARGETS_BL, (TARGETS_BL + 1) % 7)
    same = losses.token_cross_entropy(LOGITS_BLV, other, SCORE_BL, smoothing=0.1)[0]
    assert float(same) == float(loss(LOGITS_BLV))


def test_smoothing_mixes_in_the_uniform_distribution():
    got = losses.token_cross_entropy(LOGITS_BLV, TARGETS_BL, SCORE_BL, smoothing=0.3)[0]
    plain = losses.token_cross_entropy(LOGITS_BLV, TARGETS_BL, SCORE_BL)[0]
    uniform = -jax.nn.log_softmax(LOGITS_BLV).mean(-1)[SCORE_BL].mean()
    np.testing.assert_allclose(got, 0.7 * plain + 0.3 * uniform, rtol=1e-5)


def test_a_batch_of_filler_costs_nothing_and_is_finite():
    mean, _, count = losses.token_cross_entropy(LOGITS_BLV, TARGETS_BL, jnp.zeros((3, 5), bool))
    assert (float(mean), int(count)) == (0.0, 1)


REAL_B = jnp.ones(8, bool)


def hot(labels):
    return jax.nn.one_hot(jnp.asarray(labels), 4)


@pytest.mark.parametrize("labels", [[0, 1, 2, 3] * 2, [0, 0, 0, 0, 1, 1, 2, 3]])
def test_balance_is_one_when_loads_follow_the_prior(labels):
    prior_E = hot(labels).mean(0)
    np.testing.assert_allclose(losses.balance(hot(labels), hot(labels), prior_E, REAL_B), 1.0, rtol=1e-6)


def test_balance_sees_a_collapse_of_the_choice_that_mean_probabilities_hide():
    prob_BE = jnp.full((8, 4), 0.25) + jnp.asarray([0.003, -0.001, -0.001, -0.001]).reshape(1, 4)
    prior_E = jnp.full(4, 0.25)
    kl = (prior_E * jnp.log(prior_E / prob_BE.mean(0))).sum()
    assert abs(kl) < 1e-4
    grad_BE = jax.grad(lambda p: losses.balance(p, hot([0] * 8), prior_E, REAL_B))(prob_BE)
    assert (grad_BE[:, 0] > 0).all() and (grad_BE[:, 1:] == 0).all()  # push down what everybody chose
    assert losses.balance(hot([0] * 8), hot([0] * 8), prior_E, REAL_B) == 4.0


def test_balance_gives_no_gradient_through_the_hard_share_and_ignores_filler():
    prior_E, prob_BE = jnp.full(4, 0.25), jax.nn.softmax(jnp.asarray(RNG.normal(size=(8, 4)), jnp.float32))
    grad = jax.grad(lambda s: losses.balance(prob_BE, s, prior_E, REAL_B))(hot([0, 1] * 4))
    assert (grad == 0).all()
    real_B = jnp.arange(8) < 5
    short = losses.balance(prob_BE[:5], hot([0, 1, 2, 3, 0]), prior_E, REAL_B[:5])
    filled = losses.balance(prob_BE, hot([0, 1, 2, 3, 0, 3, 3, 3]), prior_E, real_B)
    np.testing.assert_allclose(filled, short, rtol=1e-6)


def test_a_skewed_prior_leaves_a_large_cohort_in_one_piece():
    labels = [0] * 6 + [1, 2]
    torn = [0, 0, 3, 3, 3, 3, 1, 2]
    prior_E = jnp.asarray([0.75, 0.125, 0.115, 0.01])
    whole = losses.balance(hot(labels), hot(labels), prior_E, REAL_B)
    assert whole < losses.balance(hot(torn), hot(torn), prior_E, REAL_B)


def test_z_loss_is_the_mean_squared_log_partition_of_real_rows():
    logits_BE = jnp.asarray([[0.0, 0.0], [3.0, 1.0], [99.0, 0.0]])
    want = (np.log(2) ** 2 + np.log(np.exp(3) + np.exp(1)) ** 2) / 2
    np.testing.assert_allclose(losses.z_loss(logits_BE, jnp.asarray([True, True, False])), want, rtol=1e-5)


def test_soft_cross_entropy_drops_rows_of_weight_zero():
    logits_BE, target_BE = LOGITS_BLV[:, 0], jax.nn.softmax(LOGITS_BLV[:, 1])
    got = losses.soft_cross_entropy(logits_BE, target_BE, jnp.asarray([1.0, 3.0, 0.0]))
    each = -(target_BE * jax.nn.log_softmax(logits_BE)).sum(-1)
    np.testing.assert_allclose(got, (each[0] + 3 * each[1]) / 4, rtol=1e-6)
    assert losses.soft_cross_entropy(logits_BE, target_BE, jnp.zeros(3)) == 0


def ctc_by_paths(logp_TV, label, blank):
    """Sum over all paths, the definition."""
    T, V = logp_TV.shape
    total = -np.inf
    for path in np.ndindex(*[V] * T):
        merged = [v for i, v in enumerate(path) if i == 0 or v != path[i - 1]]
        if [v for v in merged if v != blank] == label:
            total = np.logaddexp(total, sum(logp_TV[t, v] for t, v in enumerate(path)))
    return -total


def test_ctc_is_the_sum_over_paths_per_label_and_drops_the_impossible():
    logits_BTV = jnp.asarray(RNG.normal(size=(3, 4, 3)), jnp.float32)
    frames_BT = jnp.arange(4)[None] < jnp.asarray([[4], [3], [1]])
    labels_BL, real_BL = jnp.asarray([[0, 1], [1, 0], [0, 1]]), jnp.asarray([[1, 1], [1, 0], [1, 1]], bool)
    got = losses.ctc(logits_BTV, frames_BT, labels_BL, real_BL, blank=2)
    logp = np.asarray(jax.nn.log_softmax(logits_BTV))
    want = (ctc_by_paths(logp[0], [0, 1], 2) + ctc_by_paths(logp[1, :3], [1], 2)) / 3  # the third: 2 labels, 1 frame
    np.testing.assert_allclose(got, want, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_of_scored_positions_alone_is_that_of_all_logits(smoothing):
    """More positions than a chunk holds, most of them not scored; value, hits and gradient."""
    B, L, D, V = 3, 50, 6, 40
    x_BLD = jnp.asarray(RNG.normal(size=(B, L, D)), jnp.float32)
    embed_VD = jnp.asarray(RNG.normal(size=(V, D)), jnp.float32)
    targets_BL, score_BL = jnp.asarray(RNG.integers(0, V, (B, L))), jnp.asarray(RNG.random((B, L)) < 0.5)
    assert int(score_BL.sum()) > losses.CHUNK

    def whole(x_BLD):
        logits_BLV = x_BLD @ embed_VD.T
        mean, _, count = losses.token_cross_entropy(logits_BLV, targets_BL, score_BL, smoothing)
        return 2 * mean, ((logits_BLV.argmax(-1) == targets_BL) & score_BL).sum() / count

    def parts(x_BLD):
        mean, hits = losses.frozen_cross_entropy(x_BLD, embed_VD, targets_BL, score_BL, smoothing)
        return 2 * mean, hits

    (one, hit), gradient = jax.value_and_grad(whole, has_aux=True)(x_BLD)
    (other, hit_too), gradient_too = jax.jit(jax.value_and_grad(parts, has_aux=True))(x_BLD)
    np.testing.assert_allclose([other, hit_too, parts(x_BLD)[0]], [one, hit, one], rtol=1e-5)
    np.testing.assert_allclose(gradient_too, gradient, rtol=1e-4, atol=1e-6)
    nobody = losses.frozen_cross_entropy(x_BLD, embed_VD, targets_BL, jnp.zeros((B, L), bool))
    assert [float(x) for x in nobody] == [0.0, 0.0]


def test_likeness_is_the_mean_squared_cosine_of_updates_multiplied_out():
    layers = [(RNG.normal(size=(3, 6, 2)), RNG.normal(size=(3, 2, 5))) for _ in range(2)]
    squared = []
    for A_EDR, B_ERO in layers:
        flat = (A_EDR @ B_ERO).reshape(3, -1)
        unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        squared += [(unit[e] @ unit[f]) ** 2 for e in range(3) for f in range(3) if e != f]
    np.testing.assert_allclose(losses.likeness(layers), np.mean(squared), rtol=1e-4)
    alike = [(np.repeat(A_EDR[:1], 3, 0), np.repeat(B_ERO[:1], 3, 0)) for A_EDR, B_ERO in layers]
    np.testing.assert_allclose(losses.likeness(alike), 1.0, rtol=1e-4)


def test_likeness_has_a_gradient_where_updates_begin_at_zero():
    A_EDR, B_ERO = jnp.asarray(RNG.normal(size=(3, 6, 2))), jnp.zeros((3, 2, 5))
    slope = jax.grad(lambda B: losses.likeness([(A_EDR, B)]))(B_ERO)
    assert float(losses.likeness([(A_EDR, B_ERO)])) == 0.0 and bool(jnp.isfinite(slope).all())
