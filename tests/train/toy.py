"""A model that trains in milliseconds and has what the machine room must handle: backbone, experts, gate, noise."""

import jax
import jax.numpy as jnp
import numpy as np

D, O, E, R, U = 8, 16, 4, 2, 6
TRAINABLE = ("expert", "gate")


def params(seed=0):
    """Two linear layers, one stack of experts (B not zero, so that every leaf has a gradient), a linear gate."""
    rng = np.random.default_rng(seed)

    def array(*shape):
        return jnp.asarray(rng.normal(size=shape) * 0.3, jnp.float32)

    return {
        "backbone": {"q": {"kernel": array(D, O), "bias": array(O)}, "fc2": {"kernel": array(O, D)}},
        "expert": {"q": {"A": array(E, D, R), "B": array(E, R, O)}},
        "gate": {"out": {"kernel": array(U, E), "bias": array(E)}},
    }


def batch(number, rows=16):
    """Regression targets; a pure function of `number`."""
    rng = np.random.default_rng([7, number])
    x_BD, u_BU, y_BD = (rng.normal(size=(rows, width)).astype(np.float32) for width in (D, U, D))
    return {"x_BD": x_BD, "u_BU": u_BU, "y_BD": y_BD, "poison_B": np.zeros(rows, np.float32)}


def loss(params, batch, key):
    """Squared error of a gated mixture under input noise; `poison_B` of nan makes loss and gradients nan."""
    x_BD = batch["x_BD"] + 0.1 * jax.random.normal(key, batch["x_BD"].shape)
    gate = params["gate"]["out"]
    gate_BE = jax.nn.softmax(batch["u_BU"] @ gate["kernel"] + gate["bias"][None])
    expert, base = params["expert"]["q"], params["backbone"]
    low_BER = jnp.einsum("BD,EDR->BER", x_BD, expert["A"]) * gate_BE[:, :, None]
    h_BO = x_BD @ base["q"]["kernel"] + base["q"]["bias"][None] + jnp.einsum("BER,ERO->BO", low_BER, expert["B"])
    error_BD = jnp.tanh(h_BO) @ base["fc2"]["kernel"] - batch["y_BD"]
    loss = jnp.mean(error_BD**2) + jnp.mean(batch["poison_B"])
    return loss, {"load_E": gate_BE.mean(0)}


class Batches:
    """The toy's loader."""

    def __init__(self, on_next=None):
        self.number, self.on_next = 0, on_next

    def __next__(self):
        if self.on_next:
            self.on_next(self.number)
        self.number += 1
        return batch(self.number - 1)

    def get_state(self):
        return {"batch": self.number}

    def set_state(self, state):
        self.number = state["batch"]
