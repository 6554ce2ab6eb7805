"""Formats of the backbone's weights: what is changed, by how much, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional
from moejax.nn.quantize import quantize
from moejax.ops import int8, products
from moejax.runtime import sharding
from moejax.tasks import asr

MEL_BNM = jnp.asarray(np.random.default_rng(1).normal(size=(2, 32, 20)), jnp.float32)
TOKENS_BL = jnp.asarray(np.random.default_rng(0).integers(0, tiny.VOCAB, (2, 7)))


def logits(graphdef, params, route=None):
    @jax.jit
    def run(params):
        model = functional.merge(graphdef, params)
        return model.decode(TOKENS_BL, model.encode(MEL_BNM, route=route), route=route)

    return run(params)


def matrix(seed=0, d_in=24, d_out=16):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((d_in, d_out)) * 10.0 ** rng.uniform(-4, 3, d_out)).astype(np.float32)


@pytest.mark.parametrize("place", [np.asarray, jnp.asarray])
def test_every_entry_is_within_half_a_step_of_its_channel(place):
    kernel = matrix()
    found = int8.quantize_matrix(place(kernel))
    step_O = np.abs(kernel).max(0) / 127
    np.testing.assert_allclose(found.scale, step_O, rtol=1e-6)
    assert found.values.dtype == np.int8 and isinstance(found.values, type(place(kernel)))
    error = np.abs(np.asarray(found.astype(jnp.float32)) - kernel)
    assert (error <= 0.5 * step_O[None] * (1 + 1e-4)).all() and (error.max(0) > 0.3 * step_O).all()


def test_zero_stays_zero_and_signs_are_symmetric():
    kernel = matrix()
    kernel[3], kernel[:, 5] = 0.0, 0.0
    found = int8.quantize_matrix(kernel)
    assert not np.asarray(found.astype(jnp.float32))[3].any()
    assert not found.values[:, 5].any() and np.isfinite(found.scale).all()
    np.testing.assert_array_equal(int8.quantize_matrix(-kernel).values, -found.values)


def test_what_fits_the_grid_is_kept_exactly():
    rng = np.random.default_rng(2)
    values = rng.integers(-127, 128, (24, 16)).astype(np.float32)
    values[0] = 127
    kernel = values * 2.0 ** rng.integers(-8, 8, 16).astype(np.float32)
    np.testing.assert_array_equal(int8.quantize_matrix(kernel).astype(jnp.float32), kernel)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_product_is_that_of_the_matrix_written_out(dtype):
    x_BTD = jax.random.normal(jax.random.key(0), (2, 5, 24)).astype(dtype)
    kernel = int8.quantize_matrix(matrix())
    y_BTO = products.matmul(x_BTD, kernel)
    assert y_BTO.dtype == dtype
    want = np.asarray(x_BTD, np.float32) @ np.asarray(kernel.astype(jnp.float32))
    rtol = 1e-5 if dtype == "float32" else 0.03
    size = np.abs(np.asarray(x_BTD, np.float32)) @ np.abs(np.asarray(kernel.astype(jnp.float32)))
    assert (np.abs(np.asarray(y_BTO, np.float32) - want) <= rtol * size).all()


def test_linear_kernels_alone_become_int8():
    _, params = tiny.model()
    found = functional.paths(quantize(params, "int8"))
    changed = {path for path, leaf in found.items() if isinstance(leaf, int8.Int8Matrix)}
    layers = {p for p in functional.paths(params) if p.startswith("backbone") and p.endswith("kernel")}
    assert changed == {p for p in layers if "conv" not in p} and len(changed) == 6 + 10
    for path, leaf in functional.paths(params).items():
        if path not in changed:
            np.testing.assert_array_equal(found[path], leaf)


def test_the_error_of_int8_is_small_and_that_of_bfloat16_smaller():
    graphdef, params = tiny.model(None)
    want = logits(graphdef, params)
    off = {kind: float(jnp.abs(logits(graphdef, quantize(params, kind)) - want).max()) for kind in ("int8", "bfloat16")}
    assert 0 < off["bfloat16"] < off["int8"] < 0.1 * float(want.std())
    np.testing.assert_array_equal(logits(graphdef, quantize(params, "float32")), want)
    assert quantize(params, "") is params


def test_fresh_experts_change_nothing_on_an_int8_backbone():
    graphdef, params = tiny.model(awake=False)
    params = quantize(params, "int8")
    route = asr.Mixture(targets=(), num_experts=tiny.E, rank=2, alpha=4.0).route(jnp.zeros((2, tiny.E)))
    np.testing.assert_array_equal(logits(graphdef, params, route), logits(graphdef, params))
    awake = tiny.wake(params)
    assert (logits(graphdef, awake, route) != logits(graphdef, params)).any()


def test_experts_learn_on_an_int8_backbone_that_stays_as_it_is():
    graphdef, params = tiny.model(awake=False)
    params = quantize(params, "int8")
    loss_fn, _, _ = tiny.loss_of(graphdef)
    before = jax.tree.map(np.asarray, params["backbone"])
    state, frozen, step = tiny.trainer(loss_fn, params, ("expert",))
    data, seen = tiny.batch(), []
    for _ in range(8):
        state, metrics = step(state, frozen, data)
        seen.append(float(metrics["ce"]))
    assert seen[-1] < seen[0] - 0.05
    jax.tree.map(np.testing.assert_array_equal, before, frozen["backbone"])


def test_it_is_cut_over_a_mesh_as_the_kernel_would_be():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "model": 2})
    kernel = sharding.param_spec("backbone/decoder/layers/0/fc1/kernel", (32, 48), mesh)
    assert sharding.param_spec("backbone/decoder/layers/0/fc1/kernel/values", (32, 48), mesh) == kernel
    assert not any(sharding.param_spec("backbone/decoder/layers/0/fc1/kernel/scale", (48,), mesh))
    graphdef, params = tiny.model(None)
    params = quantize(params, "int8")
    placed = jax.device_put(params, sharding.param_sharding(params, mesh))
    np.testing.assert_allclose(logits(graphdef, placed), logits(graphdef, params), atol=1e-5)


def test_an_unknown_format_and_the_way_back_are_refused():
    _, params = tiny.model(None)
    with pytest.raises(ValueError, match="unknown format of weights 'int4'; known: float32, bfloat16, int8"):
        quantize(params, "int4")
    with pytest.raises(ValueError, match="kernel is int8; bfloat16 weights are read from the checkpoint again"):
        quantize(quantize(params, "int8"), "bfloat16")
    assert quantize(quantize(params, "int8"), "int8")["backbone"].keys() == params["backbone"].keys()
