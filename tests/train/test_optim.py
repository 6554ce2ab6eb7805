import jax.numpy as jnp
import numpy as np
import pytest

from moejax.train import optim


def first_update(**options):
    optimizer, _ = optim.make_optimizer(learning_rate=0.1, steps=10, schedule="constant", **options)
    params = {"expert": {"A": jnp.ones((2, 2)), "b": jnp.ones(2)}, "gate": {"kernel": jnp.ones((2, 2))}}
    grads = {"expert": {"A": jnp.full((2, 2), 3.0), "b": jnp.full(2, 3.0)}, "gate": {"kernel": jnp.full((2, 2), 3.0)}}
    return optimizer.update(grads, optimizer.init(params), params)[0]


def test_cosine_rises_over_the_warmup_and_ends_at_zero():
    rate = optim.make_schedule("cosine", 1.0, steps=100, warmup=10)
    values = np.array([rate(n) for n in range(101)])
    assert 0 < values[0] < 0.2 and values.argmax() in (9, 10) and values.max() == 1
    assert values[100] == pytest.approx(0, abs=1e-6) and np.all(np.diff(values[10:]) <= 0)


def test_linear_and_constant():
    assert optim.make_schedule("linear", 2.0, steps=10)(5) == pytest.approx(1)
    assert [float(optim.make_schedule("constant", 2.0, steps=10)(n)) for n in (0, 9)] == [2, 2]


@pytest.mark.parametrize(
    ("options", "word"),
    [({"schedule": "cosin"}, "cosine, constant, linear"), ({"name": "lion"}, "adamw"), ({"warmup": 11}, "warmup 11")],
)
def test_unknown_choice_prints_the_known(options, word):
    with pytest.raises(ValueError, match=word):
        optim.make_optimizer(learning_rate=1.0, steps=10, **options)


def test_leaf_scale_scales_arrays_by_their_names():
    params = {"expert": {"q": {"A": jnp.ones((2, 2)), "B": jnp.ones((2, 2))}, "B": jnp.ones((2, 2))}}
    made = optim.make_optimizer(learning_rate=0.1, steps=10, schedule="constant", leaf_scale={"B": 16.0})[0]
    updates, _ = made.update(params, made.init(params), params)
    first, second = updates["expert"]["q"]["A"][0, 0], updates["expert"]["q"]["B"][0, 0]
    assert float(second) == pytest.approx(16 * float(first)) and float(updates["expert"]["B"][0, 0]) == float(second)


def test_group_scale_scales_one_group():
    plain, scaled = first_update(), first_update(group_scale={"gate": 0.5})
    np.testing.assert_allclose(scaled["gate"]["kernel"], 0.5 * plain["gate"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(scaled["expert"]["A"], plain["expert"]["A"])
    with pytest.raises(KeyError, match="hypernet"):
        first_update(group_scale={"hypernet": 1.0})


def test_weight_decay_spares_vectors_and_adam_ignores_the_gradients_size():
    plain, decayed = first_update(), first_update(weight_decay=0.1)
    np.testing.assert_allclose(plain["expert"]["A"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(decayed["expert"]["A"], -0.11, rtol=1e-4)
    np.testing.assert_array_equal(decayed["expert"]["b"], plain["expert"]["b"])


def test_clip_bounds_the_global_norm():
    update = first_update(name="sgd", clip=1.0)
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for tree in update.values() for leaf in tree.values()))
    assert norm == pytest.approx(0.1, rel=1e-5)


def test_plateau_halves_the_rate_when_an_epochs_loss_stays_and_rides_in_the_state():
    plateau = optim.Plateau(steps=2, patience=3, factor=0.5, least=0.25)
    made = optim.make_optimizer("sgd", b1=0.0, learning_rate=1.0, steps=1, schedule="plateau", plateau=plateau, clip=0)[
        0
    ]
    params = {"head": {"w": jnp.ones((1, 1))}}
    state, sizes = made.init(params), []
    losses = [3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    for loss in np.repeat(losses, 2) + np.tile([0.01, -0.01], len(losses)):  # its mean over an epoch counts
        updates, state = made.update(params, state, params, value=jnp.float32(loss))
        sizes.append(-float(updates["head"]["w"][0, 0]))
    by_epoch = np.array(sizes[1::2])
    assert by_epoch[:5].tolist() == [1.0] * 5 and by_epoch[6:9].tolist() == [0.5] * 3
    assert by_epoch[-1] == by_epoch[-3] == 0.25  # and no lower
    with pytest.raises(ValueError, match="needs to be told"):
        optim.make_optimizer(learning_rate=1.0, steps=1, schedule="plateau")
