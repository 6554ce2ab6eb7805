"""Losses that do not mind how speakers are numbered."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops import permutation


@pytest.mark.parametrize("speakers", [2, 5])
def test_enumeration_and_assignment_find_the_same(speakers):
    cost = jax.random.normal(jax.random.key(speakers), (6, speakers, speakers))
    sums, orders = permutation.best_by_enumeration(cost)
    others, chosen = permutation.best_by_assignment(cost)
    np.testing.assert_allclose(sums, others, atol=1e-5)
    assert (orders == chosen).all()
    by_hand = [
        min(sum(float(one[i, j]) for i, j in enumerate(order)) for order in itertools.permutations(range(speakers)))
        for one in np.asarray(cost)
    ]
    np.testing.assert_allclose(permutation.best(cost)[0], by_hand, atol=1e-5)
    slopes = [
        jax.grad(lambda c, f=f: f(c)[0].sum())(cost)
        for f in (permutation.best_by_enumeration, permutation.best_by_assignment)
    ]
    np.testing.assert_array_equal(*slopes)


def test_costs_are_cross_entropies_of_real_frames():
    keys = jax.random.split(jax.random.key(0), 2)
    logits = 3 * jax.random.normal(keys[0], (2, 7, 3))
    active = jax.random.bernoulli(keys[1], 0.4, (2, 7, 3))
    mask = jnp.arange(7)[None] < jnp.array([[7], [4]])
    found = permutation.pair_costs(logits, active, mask)
    p = jax.nn.sigmoid(logits)
    for b, i, j in itertools.product(range(2), range(3), range(3)):
        y, q = active[b, :, j], p[b, :, i]
        wanted = -(jnp.where(y, jnp.log(q), jnp.log1p(-q)) * mask[b]).sum()
        assert float(found[b, i, j]) == pytest.approx(float(wanted), abs=1e-4)
    order = jnp.array([2, 0, 1])
    renamed = permutation.pair_costs(logits, active[..., order], mask)
    np.testing.assert_allclose(permutation.best(renamed)[0], permutation.best(found)[0], atol=1e-5)


def test_only_speakers_that_are_there_are_paired():
    cost = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4)) + 5)
    sums, orders = permutation.best(permutation.among(cost, jnp.array([2, 0])))
    assert sorted(np.asarray(orders[0, :2]).tolist()) == [0, 1] and float(sums[1]) == 0
    two = permutation.best_by_enumeration(cost[:1, :2, :2])[0]
    assert float(sums[0]) == pytest.approx(float(two[0]), abs=1e-5)
