"""Losses of recognition and routing. All take masks by position; all reduce in float32 over the *global* batch."""

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
