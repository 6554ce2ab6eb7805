"""Mixture models by expectation maximisation in JAX: Gaussian, Student-t, Laplace, von Mises-Fisher, and a truncated
Dirichlet process of Gaussians by its variational form of the same loop.

All numbers of components and all starts are one compiled program: every problem has as many slots for components as
the largest, and a mask says which of them exist. Points are scaled to
unit variance first, so that float32 is enough and the floors mean the same everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, gammaln, logsumexp

from moejax.cohorts.projection import checked
from moejax.errors import BadValue

FAMILIES = ("gaussian", "student", "laplace", "vmf", "dp")
COVARIANCES = ("spherical", "diag", "full")
FLOOR = 1e-3  # of the data's variance: no component shrinks onto a point
MOST_KAPPA = 400.0  # the floor of a von Mises-Fisher component: a spread of about 1 / 400
BESSEL_TERMS = 512  # enough of the power series for every argument up to MOST_KAPPA
LLOYD = 10  # k-means steps after the k-means++ draw
ABSENT = -1e30  # log weight of a slot that holds no component; finite, so that 0 * ABSENT is 0 and not NaN


@dataclass(frozen=True, kw_only=True)
class MixtureModel:
    """A fitted mixture of `num_components`; `log_likelihood` is the total over the points in their own units (for
    "vmf" of the points' directions, for "dp" the expectation under the variational posterior).

    `num_parameters` counts what is free, `bic` is -2 log likelihood + parameters x log N, `effective` is the number of
    components that the weights use, exp(entropy).
    """

    family: str
    covariance: str
    num_components: int
    parameters: dict[str, np.ndarray]
    centre_U: np.ndarray
    scale: float
    log_likelihood: float
    num_parameters: int
    bic: float
    iterations: int

    @property
    def effective(self) -> float:
        log_w = self.parameters["log_weight_C"][: self.num_components].astype(np.float64)
        weight_C = np.exp(log_w - log_w.max())
        weight_C /= weight_C.sum()
        return float(np.exp(-(weight_C * np.log(np.maximum(weight_C, 1e-30))).sum()))

    def log_joint(self, x_NU: np.ndarray) -> np.ndarray:
        """log of weight x density of every component at every point, `[N, C]`, in the points' own units."""
        points_NU = _points(x_NU, self.centre_U, self.scale, self.family)
        joint_NC = np.asarray(_joint(self.parameters, points_NU, family=self.family, covariance=self.covariance))
        return joint_NC[:, : self.num_components] - self._jacobian(len(self.centre_U))

    def _jacobian(self, width: int) -> float:
        return 0.0 if self.family == "vmf" else width * float(np.log(self.scale))

    def posterior(self, x_NU: np.ndarray) -> np.ndarray:
        """Probability of every component for every point, `[N, C]`."""
        joint_NC = self.log_joint(x_NU)
        weight_NC = np.exp(joint_NC - joint_NC.max(axis=1, keepdims=True))
        return weight_NC / weight_NC.sum(axis=1, keepdims=True)

    def score(self, x_NU: np.ndarray) -> float:
        """Mean log likelihood of points, held out or not."""
        joint_NC = self.log_joint(x_NU)
        top_N = joint_NC.max(axis=1)
        return float(np.mean(top_N + np.log(np.exp(joint_NC - top_N[:, None]).sum(axis=1))))


def fit(
    x_NU: np.ndarray,
    *,
    family: str = "gaussian",
    covariance: str = "diag",
    components: Sequence[int] = (2,),
    inits: int = 4,
    seed: int = 0,
    steps: int = 200,
    tolerance: float = 1e-4,
    start_NC: np.ndarray | None = None,
) -> list[MixtureModel]:
    """The most likely of `inits` starts for each number in `components`.

    Starts are k-means++ draws with a few steps of k-means; `start_NC` (responsibilities) replaces them, for one number.
    An iteration changes the mean log likelihood by `tolerance` at least, or is the last. "laplace" knows spherical and
    diag, "vmf" ignores the covariance and sees only the direction of a point from the origin, "dp" is diagonal, with
    the numbers as truncation and scikit-learn's priors (Blei and Jordan 2006); Student's degrees of freedom are
    estimated for each component (Peel and McLachlan 2000).
    """
    x_NU = checked(x_NU)
    if family not in FAMILIES or covariance not in COVARIANCES or (family == "laplace" and covariance == "full"):
        raise BadValue(
            f"em: {family!r} with covariance {covariance!r} is unknown; known: {', '.join(FAMILIES)} with "
            f"{', '.join(COVARIANCES)} (laplace: spherical, diag)"
        )
    wrong = [n for n in components if not 1 <= n <= len(x_NU)]
    if wrong or not len(components):
        raise BadValue(f"em: components={list(components)} must be numbers from 1 to the {len(x_NU)} points")
    if family == "dp":
        covariance = "diag"
    centre_U = np.zeros(x_NU.shape[1]) if family == "vmf" else x_NU.mean(axis=0)
    scale = max(float(np.sqrt(x_NU.var(axis=0).mean())), 1e-12)
    points_NU = _points(x_NU, centre_U, scale, family)
    slots = max(components)
    if start_NC is None:
        numbers_R = np.repeat(np.asarray(components), inits)
        keys_R = jax.random.split(jax.random.key(seed), len(numbers_R))
        start_RNC = _starts(keys_R, points_NU, numbers_R, slots=slots)
    else:
        inits, numbers_R, start_RNC = 1, np.asarray(components), jnp.asarray(start_NC, jnp.float32)[None]
    run = functools.partial(_run, family=family, covariance=covariance, steps=steps, batch=inits)
    found = jax.device_get(run(points_NU, start_RNC, numbers_R, tolerance))
    return [
        _best(found, slice(i * inits, (i + 1) * inits), n, x_NU, family, covariance, centre_U, scale)
        for i, n in enumerate(components)
    ]


def _points(x_NU, centre_U, scale: float, family: str):
    x_NU = (np.asarray(x_NU, np.float64) - centre_U) / scale
    if family == "vmf":
        x_NU = x_NU / np.maximum(np.linalg.norm(x_NU, axis=1, keepdims=True), 1e-12)
    return x_NU.astype(np.float32)


def _best(found, runs: slice, number: int, x_NU, family: str, covariance: str, centre_U, scale: float) -> MixtureModel:
    parameters_R, level_R, steps_R = found
    best = runs.start + int(np.nan_to_num(level_R[runs], nan=-np.inf).argmax())
    n, width = x_NU.shape
    mixture = MixtureModel(
        family=family,
        covariance=covariance,
        num_components=number,
        centre_U=centre_U,
        scale=scale,
        parameters={name: value[best] for name, value in parameters_R.items()},
        log_likelihood=0.0,
        num_parameters=free_parameters(family, covariance, number, width),
        bic=0.0,
        iterations=int(steps_R[best]),
    )
    total = n * mixture.score(x_NU)
    more = {"log_likelihood": total, "bic": -2 * total + mixture.num_parameters * float(np.log(n))}
    return MixtureModel(**{**mixture.__dict__, **more})


def free_parameters(family: str, covariance: str, components: int, width: int) -> int:
    """Free numbers of a mixture: weights, places, spreads, and for Student the degrees of freedom."""
    spread = {"spherical": 1, "diag": width, "full": width * (width + 1) // 2}[covariance]
    each = width if family == "vmf" else width + spread + (family == "student")  # a direction has width - 1, kappa 1
    return components * each + components - 1


@functools.partial(jax.jit, static_argnames="slots")
def _starts(keys_R, points_NU, numbers_R, *, slots: int):
    """k-means++ (Arthur and Vassilvitskii 2007), then a few steps of k-means: one-hot responsibilities `[R, N, C]`."""
    size_N = jnp.square(points_NU).sum(-1)

    def distances(centres_CU):
        cross_NC = points_NU @ centres_CU.T
        return jnp.maximum(size_N[:, None] - 2 * cross_NC + jnp.square(centres_CU).sum(-1)[None], 0.0)

    def one(key, number):
        keys_C = jax.random.split(key, slots)
        first_U = points_NU[jax.random.randint(keys_C[0], (), 0, len(points_NU))]

        def draw(near_N, key_slot):
            point_U = points_NU[jax.random.categorical(key_slot, jnp.log(near_N + 1e-12))]
            return jnp.minimum(near_N, jnp.square(points_NU - point_U[None]).sum(-1)), point_U

        _, rest_CU = jax.lax.scan(draw, jnp.square(points_NU - first_U[None]).sum(-1), keys_C[1:])
        centres_CU = jnp.concatenate([first_U[None], rest_CU])
        exists_C = jnp.arange(slots) < number

        def nearest(centres_CU):
            return jax.nn.one_hot(jnp.where(exists_C[None], distances(centres_CU), jnp.inf).argmin(-1), slots)

        def step(_, centres_CU):
            near_NC = nearest(centres_CU)
            count_C1 = near_NC.sum(0)[:, None]
            return jnp.where(count_C1 > 0, near_NC.T @ points_NU / jnp.maximum(count_C1, 1), centres_CU)

        return nearest(jax.lax.fori_loop(0, LLOYD, step, centres_CU))

    return jax.vmap(one)(keys_R, numbers_R)


@functools.partial(jax.jit, static_argnames=("family", "covariance", "steps", "batch"))
def _run(points_NU, start_RNC, numbers_R, tolerance, *, family: str, covariance: str, steps: int, batch: int):
    """EM from every start: `(parameters [R, ...], mean log likelihood [R], iterations [R])`."""
    slots = start_RNC.shape[-1]

    def one(start_NC, number):
        exists_C = jnp.arange(slots) < number
        prior = _prior(points_NU, number)

        def maximise(share_NC, before):
            return _maximise(points_NU, share_NC, exists_C, before, prior, family, covariance)

        def body(state):
            parameters, level, _, step = state
            joint_NC = _joint(parameters, points_NU, family=family, covariance=covariance)
            total_N = logsumexp(joint_NC, axis=1)
            share_NC = jnp.exp(joint_NC - total_N[:, None])
            return maximise(share_NC, parameters), total_N.mean(), level, step + 1

        def unfinished(state):
            _, level, before, step = state
            return (step < steps) & ((step < 2) | (jnp.abs(level - before) > tolerance))

        first = (maximise(start_NC, None), -jnp.inf, -jnp.inf, 0)
        parameters, level, _, step = jax.lax.while_loop(unfinished, body, first)
        return parameters, level, step

    # One number of components after the other, its starts side by side: memory and idle iterations stay small.
    return jax.lax.map(lambda each: one(*each), (start_RNC, numbers_R), batch_size=batch)


def _prior(points_NU, number) -> dict:
    """Of the Dirichlet process: scikit-learn's defaults, weakly informative at the scale of the data."""
    n = len(points_NU)
    return {
        "concentration": 1.0 / number,
        "mean_U": points_NU.mean(0),
        "variance_U": jnp.maximum(points_NU.var(0) * n / (n - 1), FLOOR),
    }


def _maximise(points_NU, share_NC, exists_C, before, prior, family: str, covariance: str) -> dict:
    """Parameters from responsibilities; `before` are those that the responsibilities were computed with (None at the
    start, where Student's points all weigh the same).
    """
    count_C = share_NC.sum(0) + 1e-6
    log_weight_C = jnp.where(exists_C, jnp.log(count_C / count_C.sum()), ABSENT)
    if family == "vmf":
        return {"log_weight_C": log_weight_C, **_directions(points_NU, share_NC, count_C)}
    if family == "laplace":
        return {"log_weight_C": log_weight_C, **_medians(points_NU, share_NC, count_C, covariance)}
    weight_NC, more = share_NC, {}
    if family == "student":
        width = points_NU.shape[1]
        freedom_C = jnp.full(len(count_C), 10.0) if before is None else before["freedom_C"]
        if before is not None:
            square_NC, _ = _mahalanobis(before, points_NU, covariance)
            pull_NC = (freedom_C + width)[None] / (freedom_C[None] + square_NC)
            freedom_C = _freedom(share_NC, pull_NC, count_C, freedom_C, width)
            weight_NC = share_NC * pull_NC
        more = {"freedom_C": freedom_C}
    total_C = weight_NC.sum(0) + 1e-6
    mean_CU = (weight_NC.T @ points_NU) / total_C[:, None]
    if family == "dp":
        return _stick_breaking(points_NU, share_NC, mean_CU, exists_C, prior)
    return {"log_weight_C": log_weight_C, "mean_CU": mean_CU, **more} | _spread(
        points_NU, weight_NC, mean_CU, count_C, covariance
    )


def _spread(points_NU, weight_NC, mean_CU, count_C, covariance: str) -> dict:
    """Variance around the means; the floor is added, as scikit-learn's reg_covar is."""
    if covariance == "full":
        centred_CNU = points_NU[None] - mean_CU[:, None]
        scatter_CUV = jnp.einsum("CNU,CNV->CUV", centred_CNU * weight_NC.T[..., None], centred_CNU)
        scatter_CUV = scatter_CUV / count_C[:, None, None]
        return {"cholesky_CUV": jnp.linalg.cholesky(scatter_CUV + FLOOR * jnp.eye(points_NU.shape[1])[None])}
    # E[(x - m)^2] from moments: no [N, C, U]. The mean is the weighted one, so that the cross term is known.
    total_C = weight_NC.sum(0)
    square_CU = weight_NC.T @ jnp.square(points_NU) - total_C[:, None] * jnp.square(mean_CU)
    variance_CU = jnp.maximum(square_CU, 0.0) / count_C[:, None]
    if covariance == "spherical":
        variance_CU = jnp.broadcast_to(variance_CU.mean(-1, keepdims=True), variance_CU.shape)
    return {"variance_CU": variance_CU + FLOOR}


def _freedom(share_NC, pull_NC, count_C, before_C, width: int):
    """Student's degrees of freedom: the root of Peel and McLachlan's equation 30 by bisection between 1 and 200."""
    known_C = 1 + (share_NC * (jnp.log(pull_NC) - pull_NC)).sum(0) / count_C
    known_C = known_C + digamma((before_C + width) / 2) - jnp.log((before_C + width) / 2)

    def slope(freedom_C):  # falls with the degrees of freedom
        return -digamma(freedom_C / 2) + jnp.log(freedom_C / 2) + known_C

    def halve(_, bounds):
        low_C, high_C = bounds
        middle_C = jnp.sqrt(low_C * high_C)
        up_C = slope(middle_C) > 0
        return jnp.where(up_C, middle_C, low_C), jnp.where(up_C, high_C, middle_C)

    low_C, high_C = jax.lax.fori_loop(0, 24, halve, (jnp.full_like(count_C, 1.0), jnp.full_like(count_C, 200.0)))
    return jnp.sqrt(low_C * high_C)


def _medians(points_NU, share_NC, count_C, covariance: str) -> dict:
    """Laplace: weighted median of every dimension, and the mean absolute deviation from it."""
    order_NU = jnp.argsort(points_NU, axis=0)
    sorted_NU = jnp.take_along_axis(points_NU, order_NU, axis=0)
    passed_NUC = jnp.cumsum(share_NC[order_NU], axis=0)
    at_UC = (passed_NUC >= 0.5 * passed_NUC[-1:]).argmax(0)
    median_CU = sorted_NU[at_UC, jnp.arange(points_NU.shape[1])[:, None]].T
    away_CU = jnp.einsum("NC,NCU->CU", share_NC, jnp.abs(points_NU[:, None] - median_CU[None])) / count_C[:, None]
    if covariance == "spherical":
        away_CU = jnp.broadcast_to(away_CU.mean(-1, keepdims=True), away_CU.shape)
    return {"mean_CU": median_CU, "away_CU": away_CU + FLOOR**0.5}


def _directions(points_NU, share_NC, count_C) -> dict:
    """Von Mises-Fisher: mean direction; concentration as Banerjee et al. 2005 approximate it in equation 4.4."""
    sum_CU = share_NC.T @ points_NU
    length_C = jnp.linalg.norm(sum_CU, axis=1)
    mean_C = jnp.clip(length_C / count_C, 1e-6, 1 - 1e-6)
    kappa_C = mean_C * (points_NU.shape[1] - mean_C**2) / (1 - mean_C**2)
    return {"mean_CU": sum_CU / jnp.maximum(length_C, 1e-12)[:, None], "kappa_C": jnp.minimum(kappa_C, MOST_KAPPA)}


def _stick_breaking(points_NU, share_NC, mean_CU, exists_C, prior) -> dict:
    """Variational posterior of a truncated Dirichlet process with Normal-Wishart components of diagonal covariance."""
    count_C = share_NC.sum(0)
    square_CU = share_NC.T @ jnp.square(points_NU) / (count_C + 1e-6)[:, None]
    within_CU = jnp.maximum(square_CU - jnp.square(mean_CU), 0.0)
    precision_C, freedom_C = 1.0 + count_C, points_NU.shape[1] + count_C
    from_prior_CU = mean_CU - prior["mean_U"][None]
    centre_CU = (prior["mean_U"][None] + count_C[:, None] * mean_CU) / precision_C[:, None]
    pulled_CU = within_CU + jnp.square(from_prior_CU) / precision_C[:, None]
    variance_CU = (prior["variance_U"][None] + count_C[:, None] * pulled_CU) / freedom_C[:, None]
    after_C = jnp.cumsum(count_C[::-1])[::-1] - count_C
    one_C, other_C = 1.0 + count_C, prior["concentration"] + after_C
    both_C = digamma(one_C + other_C)
    rest_C = digamma(other_C) - both_C
    log_weight_C = digamma(one_C) - both_C + jnp.cumsum(rest_C) - rest_C
    return {
        "log_weight_C": jnp.where(exists_C, log_weight_C, ABSENT),
        "mean_CU": centre_CU,
        "variance_CU": variance_CU,
        "precision_C": precision_C,
        "freedom_C": freedom_C,
    }


def _mahalanobis(parameters, points_NU, covariance: str):
    """Squared distance in units of the spread `[N, C]` and the log determinant of the spread `[C]`."""
    mean_CU = parameters["mean_CU"]
    if covariance == "full":

        def solve(lower_UV, mean_U):
            return jax.scipy.linalg.solve_triangular(lower_UV, (points_NU - mean_U[None]).T, lower=True)

        lower_CUV = parameters["cholesky_CUV"]
        square_CN = jnp.square(jax.vmap(solve)(lower_CUV, mean_CU)).sum(1)
        return square_CN.T, 2 * jnp.log(jnp.diagonal(lower_CUV, axis1=1, axis2=2)).sum(-1)
    variance_CU = parameters["variance_CU"]
    scaled_CU = mean_CU / variance_CU
    square_NC = jnp.square(points_NU) @ (1 / variance_CU).T - 2 * points_NU @ scaled_CU.T
    square_NC = square_NC + (mean_CU * scaled_CU).sum(-1)[None]
    return jnp.maximum(square_NC, 0.0), jnp.log(variance_CU).sum(-1)


@functools.partial(jax.jit, static_argnames=("family", "covariance"))
def _joint(parameters, points_NU, *, family: str, covariance: str):
    """log weight + log density of every component at every (scaled) point, `[N, C]`."""
    log_weight_C, width = parameters["log_weight_C"], points_NU.shape[1]
    if family == "vmf":
        kappa_C = parameters["kappa_C"]
        half = width / 2
        constant_C = (half - 1) * jnp.log(kappa_C) - half * jnp.log(2 * jnp.pi) - log_bessel(half - 1, kappa_C)
        return (log_weight_C + constant_C)[None] + kappa_C[None] * (points_NU @ parameters["mean_CU"].T)
    if family == "laplace":
        away_CU = parameters["away_CU"]
        distance_NC = (jnp.abs(points_NU[:, None] - parameters["mean_CU"][None]) / away_CU[None]).sum(-1)
        return (log_weight_C - jnp.log(2 * away_CU).sum(-1))[None] - distance_NC
    square_NC, log_det_C = _mahalanobis(parameters, points_NU, covariance)
    if family == "student":
        freedom_C = parameters["freedom_C"]
        half_C = (freedom_C + width) / 2
        constant_C = gammaln(half_C) - gammaln(freedom_C / 2) - 0.5 * width * jnp.log(freedom_C * jnp.pi)
        tail_NC = half_C[None] * jnp.log1p(square_NC / freedom_C[None])
        return (log_weight_C + constant_C - 0.5 * log_det_C)[None] - tail_NC
    gauss_NC = -0.5 * ((width * jnp.log(2 * jnp.pi) + log_det_C)[None] + square_NC)
    if family == "gaussian":
        return log_weight_C[None] + gauss_NC
    freedom_C = parameters["freedom_C"]
    spread_C = width * jnp.log(2.0) + digamma(0.5 * (freedom_C[None] - jnp.arange(width)[:, None])).sum(0)
    expected_C = 0.5 * (spread_C - width / parameters["precision_C"]) - 0.5 * width * jnp.log(freedom_C)
    return (log_weight_C + expected_C)[None] + gauss_NC


def log_bessel(order, x_C):
    """log of the modified Bessel function of the first kind, by its power series; x up to `MOST_KAPPA`."""
    terms_M = jnp.arange(BESSEL_TERMS, dtype=jnp.float32)
    power_CM = jnp.log(jnp.maximum(x_C, 1e-12) / 2)[:, None] * (2 * terms_M + order)[None]
    return logsumexp(power_CM - (gammaln(terms_M + 1) + gammaln(terms_M + order + 1))[None], axis=-1)
