"""From cross-attention to times: normalised attention of the alignment heads, median filter, dynamic time warping.

Follows the reference implementation (openai/whisper, whisper/timing.py).
"""

import jax
import jax.numpy as jnp
import numpy as np

MEDIAN_WIDTH = 7  # encoder frames


def token_frame_weights(scores_BHLT, tokens_B, frames_B, *, width=MEDIAN_WIDTH):
    """Smoothed attention [B, L, T] of tokens to encoder frames, averaged over heads, float32.

    Args:
      scores_BHLT: cross-attention scores before the softmax, of the alignment heads.
      tokens_B: real tokens of each row, from the start token to the end token.
      frames_B: encoder frames of real audio of each row, at least 1.

    Each head's weights are normalised over the real tokens (mean 0, deviation 1) at every frame, then filtered along
    time. Padding never enters; entries past `tokens_B` and `frames_B` mean nothing. Where a head gives all tokens the
    same weight the reference divides rounding (or zero) by zero; here the weight is 0.
    """
    L, T = scores_BHLT.shape[2:]

    def one(row):
        score_HLT, tokens, frames = row
        frame_T, token_L = jnp.arange(T) < frames, jnp.arange(L) < tokens
        weight_HLT = jax.nn.softmax(jnp.where(frame_T[None, None], score_HLT.astype(jnp.float32), -jnp.inf), axis=-1)
        real_1L1 = token_L[None, :, None]
        mean_H1T = jnp.where(real_1L1, weight_HLT, 0.0).sum(1, keepdims=True) / tokens
        centred_HLT = jnp.where(real_1L1, weight_HLT - mean_H1T, 0.0)
        std_H1T = jnp.sqrt(jnp.square(centred_HLT).sum(1, keepdims=True) / tokens)
        # Equal weights differ by rounding, which must not be blown up to a deviation of 1.
        normal_HLT = jnp.where(std_H1T > 1e-6 * mean_H1T, centred_HLT / jnp.maximum(std_H1T, 1e-37), 0.0)
        return median_filter(normal_HLT, width, frames).mean(0)

    # One row at a time: the heads of a whole batch of a large model would be gigabytes.
    return jax.lax.map(one, (scores_BHLT, tokens_B, frames_B))


def median_filter(x, width: int, length=None):
    """Median of `width` neighbours along the last axis, the ends mirrored; an axis of width // 2 or less stays.

    `length` (may be traced) is where the real part of the axis ends and is mirrored; what follows it means nothing.
    """
    if width < 1 or width % 2 == 0:
        raise ValueError(f"median_filter: width is {width}, must be odd and positive")
    T, half = x.shape[-1], width // 2
    length = T if length is None else length
    at = jnp.abs(jnp.arange(-half, T + half))
    at = jnp.clip(jnp.where(at >= length, 2 * (length - 1) - at, at), 0, T - 1)
    padded = jnp.take(x, at, axis=-1)
    column = [padded[..., i : i + T] for i in range(width)]
    # Each pass carries the largest of what is left to the end: after half + 1 passes the median is in its place. Plain
    # minima and maxima fuse into one loop, which sorting does not.
    for last in range(width - 1, half - 1, -1):
        for i in range(last):
            column[i], column[i + 1] = jnp.minimum(column[i], column[i + 1]), jnp.maximum(column[i], column[i + 1])
    return jnp.where(length > half, column[half], x)


def dtw(cost_LT) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest monotonic path through a cost matrix: row indices and column indices, both from 0 to the last.

    numpy [L, T]. Sums are kept in float64 (as numba does in the reference, whatever its source seems to say) and ties
    broken as there: sideways (next column) unless another way is strictly cheaper than both others. Vectorised over
    the anti-diagonals, on which no cell needs another.
    """
    cost_LT = np.asarray(cost_LT, np.float64)
    L, T = cost_LT.shape
    if not cost_LT.size:
        raise ValueError(f"dtw: the cost matrix is empty, {L} x {T}")
    flat = cost_LT.ravel()
    # Rows are counted from 1 and `total[i]` lies at column `diagonal - i`; row 0 and column 0 are the border.
    before, last = np.full(L + 1, np.inf), np.full(L + 1, np.inf)
    before[0] = 0.0
    move_DL = np.full((L + T + 1, L + 1), 2, np.int8)
    for diagonal in range(2, L + T + 1):
        first, stop = max(1, diagonal - T), min(L, diagonal - 1) + 1
        row = np.arange(first, stop)
        both, down, side = before[first - 1 : stop - 1], last[first - 1 : stop - 1], last[first:stop]
        is_both = (both < down) & (both < side)
        is_down = (down < both) & (down < side)
        best = np.where(is_both, both, np.where(is_down, down, side))
        total = np.full(L + 1, np.inf)
        total[first:stop] = flat[(row - 1) * T + diagonal - row - 1] + best
        move_DL[diagonal, first:stop] = np.where(is_both, 0, np.where(is_down, 1, 2))
        before, last = last, total
    return _backtrace(move_DL, L, T)


def _backtrace(move_DL, row, column):
    rows, columns = [], []
    while row > 0 or column > 0:
        rows.append(row - 1)
        columns.append(column - 1)
        move = 2 if row == 0 else 1 if column == 0 else move_DL[row + column, row]
        row -= move != 2
        column -= move != 1
    return np.array(rows[::-1]), np.array(columns[::-1])
