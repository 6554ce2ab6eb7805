"""Losses of recognition and routing. All take masks by position; all reduce in float32 over the *global* batch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax


def token_cross_entropy(logits_BLV, targets_BL, score_BL, smoothing=0.0):
    """`(mean, per-utterance sum_B, count)` of -log p over scored positions."""
    logp_BLV = jax.nn.log_softmax(logits_BLV.astype(jnp.float32), axis=-1)
    picked_BL = jnp.take_along_axis(logp_BLV, targets_BL[..., None], axis=-1)[..., 0]
    loss_BL = -(1.0 - smoothing) * picked_BL - smoothing * logp_BLV.mean(-1)
    loss_BL = jnp.where(score_BL, loss_BL, 0.0)
    count = jnp.maximum(score_BL.sum(), 1)
    return loss_BL.sum() / count, loss_BL.sum(-1), count


CHUNK = 64  # scored positions whose logits exist at the same time


def frozen_cross_entropy(x_BLD, embed_VD, targets_BL, score_BL, smoothing=0.0):
    """`(mean of -log p over scored positions, share of them that the likeliest token hits)` of logits x E^T, where E is
    not learnt.

    The product with a large vocabulary costs more than a small decoder's layers, and most positions of a batch are
    padding, prompts or given texts: only scored ones are multiplied, some at a time, and their gradient is found in the
    same pass (as Wijmans et al. 2024, "Cut your losses"), so that no logits are kept. For a CPU: an accelerator would
    rather multiply all at once.
    """
    B, L, D = x_BLD.shape
    order_N = jnp.argsort(~score_BL.reshape(-1), stable=True)  # the scored first
    room = -(B * L) % CHUNK
    order_N = jnp.concatenate([order_N, jnp.zeros(room, order_N.dtype)])
    real_N = jnp.arange(B * L + room) < score_BL.sum()
    x_ND = jnp.take(x_BLD.reshape(-1, D), order_N, axis=0).astype(jnp.float32)
    targets_N = jnp.take(targets_BL.reshape(-1), order_N)
    found: Any = _summed(x_ND, embed_VD.astype(jnp.float32), targets_N, real_N, smoothing)
    return found[0] / jnp.maximum(score_BL.sum(), 1), found[1] / jnp.maximum(score_BL.sum(), 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _summed(x_ND, embed_VD, targets_N, real_N, smoothing):
    return _chunks(x_ND, embed_VD, targets_N, real_N, smoothing, False)[:2]


def _forward(x_ND, embed_VD, targets_N, real_N, smoothing):
    loss, hits, gradient_ND = _chunks(x_ND, embed_VD, targets_N, real_N, smoothing, True)
    return (loss, hits), gradient_ND


def _backward(smoothing, gradient_ND, cotangent):
    del smoothing
    return cotangent[0] * gradient_ND, None, None, None


_summed.defvjp(_forward, _backward)


def _chunks(x_ND, embed_VD, targets_N, real_N, smoothing, gradient: bool):
    """(sum of losses, hits, gradient [N, D] or None); chunks without a scored position cost nothing."""
    V = embed_VD.shape[0]

    def heard(inputs):
        x_CD, targets_C, real_C = inputs
        logits_CV = x_CD @ embed_VD.T
        logp_CV = jax.nn.log_softmax(logits_CV, axis=-1)
        picked_C = jnp.take_along_axis(logp_CV, targets_C[:, None], axis=-1)[:, 0]
        loss_C = -(1.0 - smoothing) * picked_C - (smoothing * logp_CV.mean(-1) if smoothing else 0.0)
        hit_C = (logits_CV.argmax(-1) == targets_C) & real_C
        found = jnp.where(real_C, loss_C, 0.0).sum(), hit_C.sum()
        if not gradient:
            return found
        wanted_CV = jax.nn.one_hot(targets_C, V) * (1.0 - smoothing) + smoothing / V
        slope_CV = jnp.where(real_C[:, None], jnp.exp(logp_CV) - wanted_CV, 0.0)
        return *found, slope_CV @ embed_VD

    def chunk(inputs):
        like = jax.eval_shape(heard, inputs)
        nothing = lambda _: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)  # noqa: E731
        return jax.lax.cond(inputs[2].any(), heard, nothing, inputs)

    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, CHUNK, *leaf.shape[1:]), (x_ND, targets_N, real_N))
    loss, hits, *slopes = jax.lax.map(chunk, parts)
    return loss.sum(), hits.sum(), slopes[0].reshape(x_ND.shape) if gradient else None


def ctc(logits_BTV, frames_BT, labels_BL, labels_real_BL, blank: int):
    """Mean CTC loss per label (Graves 2006), an auxiliary for encoders trained from scratch on little data."""
    loss_B = optax.ctc_loss(
        logits_BTV.astype(jnp.float32),
        1.0 - frames_BT.astype(jnp.float32),
        labels_BL,
        1.0 - labels_real_BL.astype(jnp.float32),
        blank_id=blank,
    )
    # An utterance with more labels than frames has no path and an astronomically large loss: it must not drown the
    # rest.
    possible_B = (frames_BT.sum(-1) > labels_real_BL.sum(-1)) & (labels_real_BL.sum(-1) > 0)
    return jnp.where(possible_B, loss_B, 0.0).sum() / jnp.maximum((labels_real_BL.sum(-1) * possible_B).sum(), 1)


def balance(prob_BE, share_BE, prior_E, real_B):
    """Prior-weighted load balance: sum_e f_e P_e / pi_e, 1 when loads follow the prior, for every k.

    f is the hard share (no gradient) and P the mean probability (Fedus et al. 2021, eq. 4); dividing by the prior
    instead of multiplying by E keeps a cohort that is 73 % of the corpus from being torn apart. A KL of the mean
    probability to uniform on batches of 4 is blind to argmax collapse: it read 0.0003 with every utterance on one
    expert.
    """
    real_B1 = real_B.astype(jnp.float32)[:, None]
    total = jnp.maximum(real_B1.sum(), 1.0)
    f_E = jax.lax.stop_gradient((share_BE * real_B1).sum(0) / total)
    P_E = (prob_BE * real_B1).sum(0) / total
    return jnp.sum(f_E * P_E / prior_E)


def z_loss(logits_BE, real_B):
    """Mean squared log-partition of the gate (Zoph et al. 2022): keeps its logits from drifting away."""
    z_B = jax.nn.logsumexp(logits_BE.astype(jnp.float32), axis=-1) ** 2
    return jnp.where(real_B, z_B, 0.0).sum() / jnp.maximum(real_B.sum(), 1)


def soft_cross_entropy(logits_BE, target_BE, weight_B):
    """Cross-entropy against soft targets; rows weigh `weight_B` (0 drops a row)."""
    logp_BE = jax.nn.log_softmax(logits_BE.astype(jnp.float32), axis=-1)
    loss_B = -(target_BE * logp_BE).sum(-1) * weight_B
    return loss_B.sum() / jnp.maximum(weight_B.sum(), 1e-9)


def likeness(pairs):
    """Mean squared cosine between the updates A B of every two experts, over layers: 0 where no two say the same, 1
    where all do. `pairs`: (A_EDR, B_ERO) of each layer; no update is ever multiplied out.

    A weight on it asks experts to differ, as the divergence between experts in zero-shot routed experts does (arXiv
    2505.22072), there of what they answer, here of what they change.
    """
    found = []
    for A_EDR, B_ERO in pairs:
        AA_EFRS = jnp.einsum("EDR,FDS->EFRS", A_EDR, A_EDR)
        BB_EFRS = jnp.einsum("ERO,FSO->EFRS", B_ERO, B_ERO)
        inner_EF = (AA_EFRS * BB_EFRS).sum((2, 3))
        norm_E = jnp.diagonal(inner_EF)
        E = len(norm_E)
        apart_EF = ~jnp.eye(E, dtype=bool)
        squared_EF = inner_EF**2 / (norm_E[:, None] * norm_E[None] + 1e-12)  # updates begin at zero
        found.append(jnp.where(apart_EF, squared_EF, 0.0).sum() / max(E * (E - 1), 1))
    return sum(found) / len(found)
