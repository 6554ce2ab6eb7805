import numpy as np
import pytest

from moejax.cohorts import agreement, clustering
from moejax.cohorts.assignment import apply_noise, fit_posterior
from moejax.cohorts.clustering import METHODS, fit_clusters, speaker_means
from moejax.cohorts.matching import match_experts
from moejax.cohorts.names import NOISE_POLICIES
from moejax.cohorts.projection import fit_discriminant, fit_pca


def blobs(centres: int = 4, each: int = 60, dims: int = 5, apart: float = 12.0, seed: int = 0):
    random = np.random.default_rng(seed)
    centre_CU = random.normal(size=(centres, dims))
    centre_CU *= apart / np.linalg.norm(centre_CU, axis=1, keepdims=True)
    truth = np.repeat(np.arange(centres), each)
    return centre_CU[truth] + random.normal(size=(len(truth), dims)), truth


def speakers_under_text(seed: int = 0):
    """12 speakers in 3 cohorts reading 8 sentences: the sentence moves an utterance ten times as far as the cohort."""
    random = np.random.default_rng(seed)
    cohort_CU, text_XU = random.normal(size=(3, 30)), 10 * random.normal(size=(8, 30))
    speaker_PU = cohort_CU[np.arange(12) % 3] + 0.15 * random.normal(size=(12, 30))
    speaker, text = (grid.ravel() for grid in np.meshgrid(np.repeat(np.arange(12), 5), np.arange(8)))
    x_NU = speaker_PU[speaker] + text_XU[text] + 0.9 * random.normal(size=(len(speaker), 30))
    return x_NU, speaker, text, speaker % 3


SMALL = {"max_clusters": 5}
OPTIONS = {method: SMALL for method in METHODS} | {"hdbscan": {"min_cluster_size": 10}}


@pytest.mark.parametrize("method", METHODS)
def test_planted_cohorts_are_found_and_new_points_join_them(method):
    x_NU, truth = blobs()
    order = np.random.default_rng(1).permutation(len(x_NU))
    fit, new = order[:160], order[160:]
    model = fit_clusters(x_NU[fit], method, seed=0, **OPTIONS[method])
    assert model.note == "" and model.num_clusters == 4
    assert agreement.adjusted_rand(model.labels_N, truth[fit]) > 0.95
    labels, members = model.assign(x_NU[new])
    assert agreement.adjusted_rand(labels, truth[new]) > 0.95
    again, _ = model.assign(x_NU[fit])
    both = (again >= 0) & (model.labels_N >= 0)
    assert np.mean(again[both] == model.labels_N[both]) > 0.98  # the same numbers mean the same clusters
    for weights in (model.memberships_NC, members):
        assert weights.shape[1] == 4 and (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_clusters(method):
    x_NU, _ = blobs(apart=4.0)
    first, second = (fit_clusters(x_NU, method, seed=3, **OPTIONS[method]) for _ in range(2))
    np.testing.assert_array_equal(first.labels_N, second.labels_N)
    np.testing.assert_array_equal(first.memberships_NC, second.memberships_NC)


def test_bic_and_silhouette_choose_the_planted_number_and_a_fixed_number_is_kept():
    x_NU, _ = blobs(centres=3, each=80)
    assert {m: fit_clusters(x_NU, m, **SMALL).num_clusters for m in ("gmm", "kmeans", "ward")} == dict.fromkeys(
        ("gmm", "kmeans", "ward"), 3
    )
    assert fit_clusters(x_NU, "gmm", num_clusters=5, covariance="diag").num_clusters == 5


def noisy():
    x_NU, _ = blobs(centres=3, each=40)
    x_NU = np.concatenate([x_NU, np.random.default_rng(5).uniform(-30, 30, (30, 5))])
    model = fit_clusters(x_NU, "hdbscan", min_cluster_size=10)
    assert 10 <= (model.labels_N < 0).sum() < 60
    return x_NU, model


@pytest.mark.parametrize("policy", NOISE_POLICIES)
def test_noise_never_becomes_a_class_by_accident(policy):
    x_NU, model = noisy()
    centroids = clustering.weighted_centroids(x_NU, model.memberships_NC)
    labels, targets, keep = apply_noise(model.labels_N, model.memberships_NC, policy, x_NU=x_NU, centroids_CU=centroids)
    noise = model.labels_N < 0
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(labels[~noise], model.labels_N[~noise])  # nobody with a cluster is touched
    np.testing.assert_array_equal(targets[~noise], model.memberships_NC[~noise])
    assert set(labels[labels >= 0]) == {0, 1, 2} and targets.shape[1] == 3
    assert keep.tolist() == (~noise if policy == "drop" else np.ones(len(noise), bool)).tolist()
    assert (labels[noise] < 0).all() == (policy in ("drop", "uniform"))
    if policy == "uniform":
        np.testing.assert_allclose(targets[noise], 1 / 3)
    if policy == "nearest":
        np.testing.assert_array_equal(targets[noise].argmax(axis=1), labels[noise])
    with pytest.raises(ValueError, match="unknown noise policy 'keep'; known: drop"):
        apply_noise(model.labels_N, model.memberships_NC, "keep")


def test_matching_and_the_discriminant_leave_noise_alone():
    x_NU, model = noisy()
    noise = model.labels_N < 0
    for experts in (2, 5):
        matched = match_experts(model.labels_N, model.memberships_NC, x_NU, experts)
        np.testing.assert_array_equal(matched.labels_N < 0, noise)
    far_NU = np.where(noise[:, None], x_NU + 1e3, x_NU)
    shrunk = [fit_discriminant(x_NU[~noise], model.labels_N[~noise], 2), fit_discriminant(far_NU, model.labels_N, 2)]
    np.testing.assert_allclose(shrunk[0][1], shrunk[1][1])


@pytest.mark.parametrize("points", [4, 6, 8, 40])
def test_where_hdbscan_finds_nothing_another_method_answers_and_says_so(points):
    x_NU = np.random.default_rng(0).normal(size=(points, 3))
    model = fit_clusters(x_NU, "hdbscan", min_cluster_size=max(2, points // 2))
    assert model.num_clusters >= 2 and model.memberships_NC.shape == (points, model.num_clusters)
    if model.method != "hdbscan":
        assert "fell back to ward" in model.note
    lonely = fit_clusters(x_NU, "hdbscan", min_cluster_size=points)
    assert lonely.method == "ward" and "hdbscan found 0 cluster(s)" in lonely.note and (lonely.labels_N >= 0).all()


def test_six_speakers_in_three_pairs():
    x_NU, truth = blobs(centres=3, each=2, apart=20.0)
    model = fit_clusters(x_NU, "hdbscan", min_cluster_size=2, min_samples=1)
    assert agreement.adjusted_rand(model.labels_N, truth) == 1.0


def test_equal_points_give_numbers():
    x_NU = np.repeat(blobs(each=5)[0][::5], 6, axis=0)
    model = fit_clusters(x_NU, "hdbscan", min_cluster_size=2, min_samples=1)
    labels, members = model.assign(x_NU[:3])
    for weights in (model.memberships_NC, members):
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert len(labels) == 3


def test_speaker_means_find_cohorts_where_utterances_follow_the_text():
    x_NU, speaker, text, cohort = speakers_under_text()
    utterances = fit_clusters(fit_pca(x_NU, dims=10)(x_NU), "hdbscan", min_cluster_size=10)
    assert agreement.adjusted_rand(utterances.labels_N, cohort) < 0.1
    assert agreement.adjusted_rand(utterances.labels_N, text) > 0.9
    means_PU, names = speaker_means(x_NU, speaker)
    means = fit_pca(means_PU, dims=10, reference_NU=x_NU)(means_PU)
    model = fit_clusters(means, "hdbscan", min_cluster_size=2, min_samples=1)
    assert agreement.adjusted_rand(model.labels_N, names % 3) > 0.9


def test_the_posterior_hears_the_cohort_of_speakers_it_never_met():
    x_NU, speaker, _, cohort = speakers_under_text()
    known = speaker < 9
    assign = fit_posterior(x_NU[known], np.where(speaker[known] == 0, -1, cohort[known]), 4)
    labels, members = assign(x_NU[~known])
    assert np.mean(labels == cohort[~known]) > 0.9
    np.testing.assert_allclose(members.sum(axis=1), 1.0)
    assert members[:, 3].max() == 0.0  # a cluster without a single row


def test_the_discriminant_keeps_the_voice_and_drops_the_text():
    x_NU, speaker, text, cohort = speakers_under_text()
    mean_U, matrix_UK = fit_discriminant(x_NU, speaker, 4)
    z_NK = (x_NU - mean_U) @ matrix_UK
    assert z_NK.shape[1] == 4

    def share(values_NK, group):  # of the variance that lies between groups
        names = np.unique(group)
        centres = np.stack([values_NK[group == name].mean(axis=0) for name in names])[np.searchsorted(names, group)]
        return ((centres - values_NK.mean(axis=0)) ** 2).sum() / ((values_NK - values_NK.mean(axis=0)) ** 2).sum()

    assert share(x_NU, text) > 0.9 and share(x_NU, cohort) < 0.1
    assert share(z_NK, text) < 0.1 and share(z_NK, cohort) > 0.5
    within = z_NK - np.stack([z_NK[speaker == p].mean(axis=0) for p in range(12)])[speaker]
    np.testing.assert_allclose(np.mean(within**2, axis=0), 1.0, rtol=1e-6)


@pytest.mark.parametrize("shrinkage", [None, 0.0, 0.5, 1.0])
def test_the_discriminant_survives_fewer_points_than_dimensions(shrinkage):
    random = np.random.default_rng(0)
    x_NU = random.normal(size=(12, 80))
    x_NU[:, 3] = 7.0  # a dead dimension
    mean_U, matrix_UK = fit_discriminant(x_NU, np.arange(12) % 4, 10, shrinkage)
    assert matrix_UK.shape == (80, 3)  # groups - 1
    assert np.isfinite(matrix_UK).all() and not matrix_UK[3].any()
    alone_U, alone_UK = fit_discriminant(x_NU[:4], np.arange(4), 2, shrinkage)  # no variance within groups at all
    assert np.isfinite((x_NU - alone_U) @ alone_UK).all()
    with pytest.raises(ValueError, match="at least 2 groups"):
        fit_discriminant(x_NU, np.zeros(12, int), 2)


def test_pca_is_an_affine_map_that_keeps_the_variance_asked_for():
    random = np.random.default_rng(0)
    x_NU = random.normal(size=(200, 3)) @ random.normal(size=(3, 20)) * 5 + random.normal(size=20)
    full = fit_pca(x_NU, variance=1.0)
    assert full.matrix_UK.shape == (20, 3)  # the rank of the data
    standard = (x_NU - x_NU.mean(0)) / x_NU.std(0)
    np.testing.assert_allclose((full(x_NU) ** 2).sum(), (standard**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(full(x_NU[:50]), full(x_NU)[:50])
    part = fit_pca(x_NU, variance=float(full.explained_K[0]) - 0.01)
    assert part.matrix_UK.shape[1] == 1
    wide = fit_pca(x_NU[:4], dims=50)  # more dimensions than points, through the other Gram matrix
    distance = np.linalg.norm(wide(x_NU[:1]) - wide(x_NU[1:2]))
    assert wide.matrix_UK.shape[1] <= 3
    scale = x_NU[:4].std(0)
    np.testing.assert_allclose(distance, np.linalg.norm((x_NU[0] - x_NU[1]) / scale), rtol=1e-6)


@pytest.mark.parametrize(
    "experts,policy,action,result",
    [(6, "split", "split", 6), (6, "shrink", "shrink", 4), (4, "split", "none", 4), (2, "shrink", "merge", 2)],
)
def test_clusters_are_matched_to_experts(experts, policy, action, result):
    x_NU, truth = blobs()
    model = fit_clusters(x_NU, "gmm", num_clusters=4)
    matched = match_experts(model.labels_N, model.memberships_NC, x_NU, experts, policy)
    assert (matched.action, matched.num_experts) == (action, result)
    assert f"4 clusters for {experts} experts" in matched.note
    assert set(matched.labels_N) == set(range(result)) and matched.memberships_NC.shape[1] == result
    np.testing.assert_allclose(matched.memberships_NC.sum(axis=1), 1.0, atol=1e-9)
    # nested: a split tears no two clusters' points together, a merge parts no cluster's
    fine, coarse = (matched.labels_N, truth) if result >= 4 else (truth, matched.labels_N)
    assert agreement.purity(fine, coarse) == 1.0
    # new points go the way of the old
    labels, members = matched.apply(*model.assign(x_NU), x_NU)
    np.testing.assert_array_equal(labels, matched.labels_N)
    np.testing.assert_allclose(members, matched.memberships_NC)


def test_the_largest_cluster_is_split_and_the_nearest_two_are_merged():
    random = np.random.default_rng(0)
    line = np.array([0.0, 10.0, 13.0])
    labels = np.repeat([0, 1, 2], [80, 20, 20])
    x_NU = np.stack([line[labels], np.zeros(120)], axis=1) + 0.1 * random.normal(size=(120, 2))
    split = match_experts(labels, np.eye(3)[labels], x_NU, 4)
    assert set(labels[split.labels_N == 3]) == {0}
    merged = match_experts(labels, np.eye(3)[labels], x_NU, 2)
    assert merged.labels_N.tolist() == np.repeat([0, 1, 1], [80, 20, 20]).tolist()


def test_single_points_cannot_be_split_so_the_experts_shrink():
    x_NU = np.eye(3)
    matched = match_experts(np.array([0, 0, 1]), np.eye(2)[[0, 0, 1]], x_NU, 10)
    assert (matched.action, matched.num_experts) == ("shrink", 3)


def test_measures_tell_voice_from_nuisance():
    random = np.random.default_rng(0)
    speaker = np.repeat(np.arange(20), 20)
    labels = speaker // 5
    seconds = agreement.quantile_bins(random.normal(size=400))
    rows = agreement.agreement(labels, {"speaker": speaker, "seconds": seconds, "constant": np.zeros(400)})
    assert set(rows) == {"speaker", "seconds"}
    # the speaker decides the cluster: explained is 1 though there are more speakers than clusters, where AMI is not
    assert rows["speaker"]["explained"] > 0.999 > 0.8 > rows["speaker"]["ami"]
    assert abs(rows["seconds"]["explained"]) < 0.05 and abs(rows["seconds"]["ari"]) < 0.05
    alone = agreement.agreement(labels, {"text": np.arange(400)})["text"]  # every utterance its own text: no evidence
    assert alone["explained"] == 0.0 and abs(alone["ami"]) < 1e-6
    shuffled = agreement.agreement(random.permutation(labels), {"speaker": speaker})
    assert abs(shuffled["speaker"]["explained"]) < 0.1 and rows["speaker"]["purity"] <= 0.2 + 1e-9
    counts, names = agreement.overlap(np.char.mod("%02d", speaker), np.where(labels == 3, -1, labels), 3)
    assert counts.sum() == 400 and counts[:5, 0].tolist() == [20] * 5 and counts[:, 3].sum() == 100
    assert len(names) == 20 and agreement.noise_share(np.array([-1, 0, 1, -1])) == 0.5


def test_quantile_bins_are_even_and_put_equal_values_together():
    assert np.bincount(agreement.quantile_bins(np.arange(100.0), 5)).tolist() == [20] * 5
    assert len(set(agreement.quantile_bins(np.zeros(9)))) == 1
    assert agreement.quantile_bins(np.array([1.0, np.nan]), 5)[1] == 5


def test_stability_tells_structure_from_its_absence():
    x_NU, _ = blobs()
    scattered = np.random.default_rng(0).normal(size=x_NU.shape)

    def score(points):
        return agreement.stability(
            lambda index, seed: fit_clusters(points[index], "kmeans", num_clusters=4, seed=seed).labels_N, len(points)
        )

    assert score(x_NU) > 0.95 > 0.8 > score(scattered)


def test_bad_input_is_one_line():
    with pytest.raises(ValueError, match="unknown clustering method 'dbscan'; known: dpgmm, gmm, hdbscan, kmeans"):
        fit_clusters(np.zeros((5, 2)), "dbscan")
    with pytest.raises(ValueError, match="NaN or infinity in 1 row"):
        fit_clusters(np.array([[0.0, 1.0], [np.nan, 1.0]]), "gmm")
    with pytest.raises(ValueError, match="'gaussian' with covariance 'round' is unknown"):
        fit_clusters(np.zeros((5, 2)), "gmm", covariance="round")
    with pytest.raises(ValueError, match="unknown matching policy"):
        match_experts(np.array([0]), np.ones((1, 1)), np.zeros((1, 2)), 2, "grow")
