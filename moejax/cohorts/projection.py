"""Fixed affine projections of embeddings, fitted once: principal components and a linear discriminant.

Both are plain arrays `(mean_U, matrix_UK)` used as `(x_NU - mean_U) @ matrix_UK`, so that any other program, a
checkpoint or a jitted gate can hold them. Standardisation is folded into the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from sklearn.covariance import ledoit_wolf_shrinkage

from moejax.errors import BadValue

MAX_RANK = 512  # the discriminant looks at this many principal directions at most: seconds, not minutes


@dataclass(frozen=True, kw_only=True)
class Projection:
    """`(x_NU - mean_U) @ matrix_UK`; `explained_K` is each output's share of the standardised variance."""

    mean_U: np.ndarray
    matrix_UK: np.ndarray
    explained_K: np.ndarray

    def __call__(self, x_NU: np.ndarray) -> np.ndarray:
        return (np.asarray(x_NU, np.float64) - self.mean_U) @ self.matrix_UK


def checked(x_NU: np.ndarray, least: int = 2) -> np.ndarray:
    """`x_NU` as finite float64 with at least `least` rows, or a ValueError that says what is wrong."""
    x_NU = np.asarray(x_NU, np.float64)
    if x_NU.ndim != 2 or len(x_NU) < least or x_NU.shape[1] == 0:
        raise BadValue(f"embeddings of shape {x_NU.shape}: expected [N, U] with N >= {least} and U >= 1")
    if not np.isfinite(x_NU).all():
        raise BadValue(f"embeddings hold NaN or infinity in {int((~np.isfinite(x_NU)).any(axis=1).sum())} row(s)")
    return x_NU


def _standardisation(x_NU: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and reciprocal standard deviation; a constant dimension gets scale 0 and so takes no part."""
    mean_U, std_U = x_NU.mean(axis=0), x_NU.std(axis=0)
    dead_U = std_U <= 1e-8 * np.maximum(np.abs(mean_U), 1.0)
    return mean_U, np.where(dead_U, 0.0, 1.0 / np.where(dead_U, 1.0, std_U))


def _principal(z_NU: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading directions `[U, K]` of centred data and variances `[K]`, by the smaller Gram matrix."""
    n, u = z_NU.shape
    gram = z_NU.T @ z_NU / n if u <= n else z_NU @ z_NU.T / n
    # Only the directions wanted: for 20 of 2560 that is a fraction of the whole decomposition.
    variance_K, axes_UK = scipy.linalg.eigh(gram, subset_by_index=[max(len(gram) - rank, 0), len(gram) - 1])
    variance_K, axes_UK = variance_K[::-1], axes_UK[:, ::-1]
    if u > n:
        axes_UK = z_NU.T @ (axes_UK / np.sqrt(n * np.maximum(variance_K, 1e-30)))
    keep = max(1, int((variance_K > 1e-10 * max(variance_K[0], 1e-30)).sum()))
    axes_UK = axes_UK[:, :keep]
    # An eigenvector has no sign of its own; fixed so that the same data give the same numbers on every machine.
    axes_UK = axes_UK * np.where(axes_UK[np.abs(axes_UK).argmax(axis=0), np.arange(keep)] < 0, -1.0, 1.0)
    return axes_UK, np.maximum(variance_K[:keep], 0.0)


def fit_pca(
    x_NU: np.ndarray,
    *,
    dims: int | None = None,
    variance: float | None = None,
    reference_NU: np.ndarray | None = None,
) -> Projection:
    """Principal components of the standardised embeddings, `dims` of them or as many as hold `variance` of the
    variance.

    Give one or both (the smaller number wins); at most min(N - 1, U) exist. The outputs are not whitened: their
    variances are the eigenvalues, so distances keep their meaning. `reference_NU` are other points whose spread
    standardises: the utterances, when `x_NU` are speaker means, because scaling the means by their own spread blows up
    the dimensions in which speakers do not differ.
    """
    if dims is None and variance is None:
        raise ValueError("fit_pca: give dims (a number of components) or variance (a share in (0, 1])")
    if (dims is not None and dims < 1) or (variance is not None and not 0 < variance <= 1):
        raise BadValue(f"fit_pca: dims={dims} must be >= 1 and variance={variance} in (0, 1]")
    x_NU = checked(x_NU)
    _, scale_U = _standardisation(x_NU if reference_NU is None else checked(reference_NU))
    mean_U = x_NU.mean(axis=0)
    z_NU = (x_NU - mean_U) * scale_U
    axes_UK, variance_K = _principal(z_NU, rank=min(dims or z_NU.size, len(x_NU) - 1, x_NU.shape[1]))
    share_K = variance_K / max(float(z_NU.var(axis=0).sum()), 1e-30)
    keep = len(share_K)
    if variance is not None:
        keep = min(keep, int(np.searchsorted(np.cumsum(share_K), variance - 1e-9)) + 1)
    return Projection(mean_U=mean_U, matrix_UK=scale_U[:, None] * axes_UK[:, :keep], explained_K=share_K[:keep])


def fit_discriminant(
    x_NU: np.ndarray, group_N: np.ndarray, dims: int, shrinkage: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Linear discriminant of the groups as an affine map `(mean_U, matrix_UK)`: keeps what tells groups apart.

    Fitted on speakers it removes what varies within a speaker (the text) and keeps the voice. Every output has unit
    variance within groups on the fitting data. `shrinkage` in [0, 1] pulls the within-group covariance towards a
    multiple of the identity; None takes the Ledoit-Wolf estimate, without which fewer utterances than dimensions would
    overfit. Groups count equally in the between-group scatter, however many utterances each has. At most groups - 1
    outputs exist: K may be less than `dims`. Rows of a negative integer group (noise) take no part.
    """
    x_NU, group_N = checked(x_NU), np.asarray(group_N)
    if group_N.shape != (len(x_NU),):
        raise ValueError(f"fit_discriminant: {group_N.shape} groups for {len(x_NU)} embeddings")
    if dims < 1 or (shrinkage is not None and not 0 <= shrinkage <= 1):
        raise BadValue(f"fit_discriminant: dims={dims} must be >= 1 and shrinkage={shrinkage} None or in [0, 1]")
    if np.issubdtype(group_N.dtype, np.integer):
        x_NU, group_N = x_NU[group_N >= 0], group_N[group_N >= 0]
    names_G, index_N = np.unique(group_N, return_inverse=True)
    if len(names_G) < 2:
        raise BadValue(f"fit_discriminant: needs at least 2 groups, found {[str(n) for n in names_G]}")

    mean_U, scale_U = _standardisation(x_NU)
    z_NU = (x_NU - mean_U) * scale_U
    axes_UR, _ = _principal(z_NU, rank=min(len(x_NU) - 1, MAX_RANK))
    z_NR = z_NU @ axes_UR
    means_GR = np.stack([z_NR[index_N == g].mean(axis=0) for g in range(len(names_G))])
    within_NR = z_NR - means_GR[index_N]
    whiten_RR = _whitening(within_NR, shrinkage, floor=1e-6 * float(np.mean(z_NR**2)))
    between_GR = (means_GR - means_GR.mean(axis=0)) @ whiten_RR
    variance_K, rotation_RK = np.linalg.eigh(between_GR.T @ between_GR)
    keep = min(dims, len(names_G) - 1, int(max(1, (variance_K > 1e-10 * variance_K[-1]).sum())))
    matrix_RK = whiten_RR @ rotation_RK[:, ::-1][:, :keep]
    # Shrinkage leaves the variance within groups near one, not at it; without any variance there is nothing to scale
    # by.
    std_K = np.sqrt(np.mean((within_NR @ matrix_RK) ** 2, axis=0))
    matrix_RK = matrix_RK / np.where(std_K > 1e-6, std_K, 1.0)
    return mean_U, scale_U[:, None] * (axes_UR @ matrix_RK)


def _whitening(within_NR: np.ndarray, shrinkage: float | None, floor: float) -> np.ndarray:
    """The symmetric inverse square root of the shrunk within-group covariance; eigenvalues at least `floor`."""
    covariance_RR = within_NR.T @ within_NR / len(within_NR)
    rank = len(covariance_RR)
    average = float(np.trace(covariance_RR)) / rank
    amount = float(ledoit_wolf_shrinkage(within_NR, assume_centered=True)) if shrinkage is None else float(shrinkage)
    covariance_RR = (1 - amount) * covariance_RR + amount * average * np.eye(rank)
    variance_R, axes_RR = np.linalg.eigh(covariance_RR)
    return (axes_RR / np.sqrt(np.maximum(variance_R, max(floor, 1e-12)))) @ axes_RR.T
