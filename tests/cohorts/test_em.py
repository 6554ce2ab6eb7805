import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture

from moejax.cohorts import em
from moejax.cohorts.agreement import adjusted_rand


def blobs(each: int = 40, spread: float = 1.0, seed: int = 0):
    random = np.random.default_rng(seed)
    centre_CU = np.array([[-6.0, 0.0, 1.0], [5.0, 3.0, 0.0], [0.0, -7.0, 8.0]])
    truth = np.repeat(np.arange(3), each)
    return 2.0 * (centre_CU[truth] + spread * random.normal(size=(len(truth), 3))) + 10.0, truth


def sideways(random, truth, wrong: float = 0.2):
    """Responsibilities that are mostly right: a start that EM has to improve."""
    return np.eye(3)[np.where(random.random(len(truth)) < wrong, random.integers(0, 3, len(truth)), truth)]


@pytest.mark.parametrize("covariance", em.COVARIANCES)
def test_gaussian_mixtures_agree_with_scikit_learn_from_the_same_start(covariance):
    x_NU, truth = blobs(spread=2.5)
    start_NC = sideways(np.random.default_rng(1), truth)
    ours = em.fit(x_NU, covariance=covariance, components=(3,), start_NC=start_NC, steps=500, tolerance=1e-7)[0]
    floor = em.FLOOR * x_NU.var(axis=0).mean()
    theirs = GaussianMixture(3, covariance_type=covariance, reg_covar=floor, tol=1e-9, max_iter=500)
    means_CU = start_NC.T @ x_NU / start_NC.sum(axis=0)[:, None]
    first = GaussianMixture(3, covariance_type=covariance, reg_covar=floor, means_init=means_CU, max_iter=1)
    first._initialize(x_NU, start_NC)
    theirs.set_params(
        weights_init=first.weights_, means_init=first.means_, precisions_init=_precisions(first, covariance)
    )
    theirs.fit(x_NU)
    assert ours.log_likelihood == pytest.approx(theirs.score(x_NU) * len(x_NU), rel=1e-4)
    assert ours.bic == pytest.approx(theirs.bic(x_NU), rel=1e-4)
    np.testing.assert_allclose(ours.posterior(x_NU), theirs.predict_proba(x_NU), atol=2e-2)


def _precisions(mixture, covariance):
    cholesky = mixture.precisions_cholesky_
    return cholesky @ cholesky.transpose(0, 2, 1) if covariance == "full" else cholesky**2


def test_the_dirichlet_process_agrees_with_scikit_learn_and_uses_as_many_components_as_there_are():
    x_NU, truth = blobs()
    ours = em.fit(x_NU, family="dp", components=(3,), start_NC=np.eye(3)[truth], steps=300, tolerance=1e-7)[0]
    scaled_NU = (x_NU - ours.centre_U) / ours.scale
    theirs = BayesianGaussianMixture(n_components=3, covariance_type="diag", random_state=0, tol=1e-6).fit(scaled_NU)
    order = [int(np.abs(theirs.means_ - mean_U).sum(axis=1).argmin()) for mean_U in ours.parameters["mean_CU"]]
    np.testing.assert_allclose(ours.parameters["mean_CU"], theirs.means_[order], atol=2e-3)
    np.testing.assert_allclose(ours.parameters["variance_CU"], theirs.covariances_[order], rtol=2e-2)
    wide = em.fit(x_NU, family="dp", components=(10,), inits=4)[0]
    assert 2.9 < wide.effective < 3.3
    assert adjusted_rand(wide.posterior(x_NU).argmax(axis=1), truth) > 0.95


@pytest.mark.parametrize("family", em.FAMILIES)
@pytest.mark.parametrize("covariance", ["spherical", "diag"])
def test_every_family_finds_the_planted_clusters_and_its_likelihood_never_falls(family, covariance):
    x_NU, truth = blobs()
    if family == "vmf":
        x_NU = x_NU - x_NU.mean(axis=0)
    found = em.fit(x_NU, family=family, covariance=covariance, components=(3,), inits=4)[0]
    assert adjusted_rand(found.posterior(x_NU).argmax(axis=1), truth) > 0.95
    np.testing.assert_allclose(found.posterior(x_NU).sum(axis=1), 1.0, atol=1e-6)
    start_NC = sideways(np.random.default_rng(2), truth, wrong=0.6)
    options = {"family": family, "covariance": covariance, "components": (3,), "start_NC": start_NC}
    levels = [em.fit(x_NU, steps=steps, tolerance=0.0, **options)[0].log_likelihood for steps in (1, 3, 10, 40)]
    if family != "dp":  # whose bound rises, not the likelihood
        assert (np.diff(levels) > -1e-2).all() and levels[-1] > levels[0]


def test_densities_are_those_of_scipy():
    x_NU, _ = blobs(spread=2.0)
    student = em.fit(x_NU, family="student", components=(1,), inits=1)[0]
    scale, p = student.scale, student.parameters
    want = scipy.stats.multivariate_t(
        student.centre_U + scale * p["mean_CU"][0].astype(np.float64),
        np.diag(scale**2 * p["variance_CU"][0].astype(np.float64)),
        df=float(p["freedom_C"][0]),
    )
    np.testing.assert_allclose(student.log_joint(x_NU)[:, 0], want.logpdf(x_NU), rtol=1e-4)
    laplace = em.fit(x_NU, family="laplace", components=(1,), inits=1)[0]
    np.testing.assert_allclose(
        laplace.centre_U + laplace.scale * laplace.parameters["mean_CU"][0], np.median(x_NU, axis=0), atol=0.3
    )
    want_N = scipy.stats.laplace.logpdf(
        x_NU,
        laplace.centre_U + laplace.scale * laplace.parameters["mean_CU"][0],
        laplace.scale * laplace.parameters["away_CU"][0],
    ).sum(axis=1)
    np.testing.assert_allclose(laplace.log_joint(x_NU)[:, 0], want_N, rtol=1e-4)
    direction_NU = (x_NU - 10) / np.linalg.norm(x_NU - 10, axis=1, keepdims=True)
    vmf = em.fit(x_NU - 10, family="vmf", components=(1,), inits=1)[0]
    mean_U = vmf.parameters["mean_CU"][0].astype(np.float64)
    want = scipy.stats.vonmises_fisher(mean_U / np.linalg.norm(mean_U), float(vmf.parameters["kappa_C"][0]))
    np.testing.assert_allclose(vmf.log_joint(x_NU - 10)[:, 0], want.logpdf(direction_NU), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [0.0, 0.5, 3.0, 20.0])
def test_the_bessel_function(order):
    x = np.array([0.1, 3.0, 50.0, em.MOST_KAPPA])
    want = np.log(scipy.special.ive(order, x)) + x
    np.testing.assert_allclose(em.log_bessel(order, x.astype(np.float32)), want, rtol=2e-4, atol=1e-3)


def test_student_weighs_outliers_less_than_a_gaussian_does():
    x_NU, truth = blobs()
    far_NU = np.concatenate([x_NU, [[400.0, 400.0, 400.0]] * 3])
    centre = {}
    for family in ("gaussian", "student"):
        found = em.fit(far_NU, family=family, components=(1,), inits=1)[0]
        centre[family] = found.centre_U + found.scale * found.parameters["mean_CU"][0]
    true_U = x_NU.mean(axis=0)
    assert np.abs(centre["student"] - true_U).max() < 0.3 * np.abs(centre["gaussian"] - true_U).max()


def test_the_criterion_chooses_the_planted_number_and_held_out_points_prefer_it():
    x_NU, truth = blobs(each=60)
    order = np.random.default_rng(0).permutation(len(x_NU))
    found = em.fit(x_NU[order[:120]], components=range(1, 8), inits=4)
    assert [mixture.num_components for mixture in found] == list(range(1, 8))
    assert min(found, key=lambda mixture: mixture.bic).num_components == 3
    held_out = [mixture.score(x_NU[order[120:]]) for mixture in found]
    assert held_out[2] > max(held_out[:2]) and held_out[2] > held_out[6]


def test_a_number_alone_and_among_others_is_the_same_fit():
    """Slots of components that do not exist change nothing."""
    x_NU, truth = blobs()
    start_NC = sideways(np.random.default_rng(3), truth)
    narrow = em.fit(x_NU, components=(3,), start_NC=start_NC)[0]
    padded_NC = np.pad(start_NC, ((0, 0), (0, 4)))
    run = em._run(
        em._points(x_NU, narrow.centre_U, narrow.scale, "gaussian"),
        padded_NC[None].astype(np.float32),
        np.array([3]),
        1e-4,
        family="gaussian",
        covariance="diag",
        steps=200,
        batch=1,
    )
    for name, value in narrow.parameters.items():
        np.testing.assert_allclose(run[0][name][0][:3], value, rtol=1e-3, atol=1e-4)


def test_equal_points_and_as_many_components_as_points_give_numbers():
    for family in em.FAMILIES:
        x_NU = np.repeat(np.eye(4), 3, axis=0)
        found = em.fit(x_NU, family=family, components=(2, 12), inits=2)
        for mixture in found:
            assert np.isfinite(mixture.log_likelihood) and np.isfinite(mixture.posterior(x_NU)).all()


def test_mistakes_are_one_line():
    x_NU, _ = blobs()
    with pytest.raises(ValueError, match="em: 'cauchy' with covariance 'diag' is unknown; known: gaussian, student"):
        em.fit(x_NU, family="cauchy")
    with pytest.raises(ValueError, match="laplace: spherical, diag"):
        em.fit(x_NU, family="laplace", covariance="full")
    with pytest.raises(ValueError, match="must be numbers from 1 to the 120 points"):
        em.fit(x_NU, components=(2, 121))
