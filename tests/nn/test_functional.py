import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional, variables
from moejax.nn.gates import MLPGate


def test_split_and_merge_are_inverse_and_every_array_has_one_group():
    graphdef, params = tiny.model(hidden=5)
    assert set(params) == {"backbone", "expert", "gate", "buffer"}
    again = functional.split(functional.merge(graphdef, params))[1]
    assert not any(tiny.changed(params, again).values())
    names = ("kernel", "bias", "hidden_kernel", "hidden_bias")
    assert set(functional.paths(params["gate"])) == {f"gate/{name}" for name in names}
    assert set(functional.paths(params["buffer"])) == {"encoder/positions", "gate/mean", "gate/matrix"}


def test_unknown_group_lists_the_known():
    graphdef, params = tiny.model()
    with pytest.raises(ValueError, match="'experts'.*backbone.*gate"):
        functional.merge(graphdef, {**params, "experts": {}})


def test_nest_is_the_inverse_of_paths():
    tree = {"a": {"0": {"kernel": 1, "bias": 2}}, "b": 3}
    assert functional.paths(tree) == {"a/0/kernel": 1, "a/0/bias": 2, "b": 3}
    assert functional.nest(functional.paths(tree)) == tree


def test_a_seed_gives_the_same_weights_and_another_seed_others():
    draws = [variables.Init(seed) for seed in (0, 0, 1)]
    first = [init.normal(40, 50, std=0.1).make() for init in draws]
    np.testing.assert_array_equal(first[0], first[1])
    assert (first[0] != first[2]).any() and abs(first[0].std() - 0.1) < 0.01
    assert (draws[0].normal(40, 50, std=0.1).make() != first[0]).any()  # the second draw of an Init is another
    uniform = draws[0].uniform(1000, bound=0.5).make()
    assert uniform.dtype == np.float32 and -0.5 <= uniform.min() < -0.45 and 0.45 < uniform.max() <= 0.5


def test_abstract_has_shapes_and_no_arrays():
    graphdef, shapes = functional.abstract(tiny.asr.build(tiny.CONFIG, mixture=tiny.MIXTURE, gate=tiny.GATE))
    params = tiny.model()[1]
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, params)
    assert functional.count(shapes) == functional.count(params)


def gate(zero_start=False, hidden=6):
    mean_U, matrix_UK = np.arange(4.0), np.random.default_rng(0).normal(size=(4, 3))
    made = MLPGate(mean_U, matrix_UK, num_experts=5, hidden=hidden, zero_start=zero_start, init=variables.Init(0))
    graphdef, params = functional.split(made)
    return functional.merge(graphdef, functional.materialise(params)), mean_U, matrix_UK


@pytest.mark.parametrize("hidden", [0, 6])
def test_gate_is_an_mlp_on_the_projected_embedding(hidden):
    made, mean_U, matrix_UK = gate(hidden=hidden)
    x_BU = np.random.default_rng(1).normal(size=(2, 4))
    h = (x_BU - mean_U) @ matrix_UK
    if hidden:
        h = np.maximum(h @ made.hidden_kernel[...] + np.asarray(made.hidden_bias[...]).reshape(1, -1), 0)
    want = h @ made.kernel[...] + np.asarray(made.bias[...]).reshape(1, -1)
    np.testing.assert_allclose(made(jnp.asarray(x_BU)), want, rtol=1e-4, atol=1e-5)
    assert np.ptp(want) > 0.1


def test_zero_start_begins_with_equal_logits_but_can_learn():
    made, *_ = gate(zero_start=True)
    assert (np.asarray(made(jnp.ones((3, 4)))) == 0).all()
    assert np.abs(made.hidden_kernel[...]).max() > 0  # else the last layer would never get a gradient


def test_a_voice_unlike_any_gets_even_logits_and_a_known_one_its_own():
    U, init = 6, variables.Init(0)
    voices_PK = np.eye(2, U, dtype=np.float32) * 10
    options = {"num_experts": 3, "hidden": 0, "init": init}
    falling = MLPGate(np.zeros(U), np.eye(U), voices_PK=voices_PK, radius=2.0, **options)
    plain = MLPGate(np.zeros(U), np.eye(U), **{**options, "init": variables.Init(0)})
    made = [functional.split(gate) for gate in (falling, plain)]
    falling, plain = (functional.merge(graphdef, functional.materialise(params)) for graphdef, params in made)
    near_BU, far_BU = voices_PK + 0.1, -10 * voices_PK
    np.testing.assert_allclose(falling(near_BU), plain(near_BU), rtol=2e-3, atol=1e-4)
    assert np.abs(plain(far_BU)).max() > 1 and np.abs(falling(far_BU)).max() < 1e-6
    half = voices_PK + np.float32([0, 0, 2, 0, 0, 0])  # at the radius
    np.testing.assert_allclose(falling(half), plain(half) / 2, rtol=1e-5)
