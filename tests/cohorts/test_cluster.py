import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from moejax.cohorts import figures, stage
from moejax.data.manifest import COLUMNS, Manifest
from moejax.work import fields
from moejax.work.folder import Work

CLUSTER_FILES = {"clusters.npz", "agreement.json", "agreement.md", "map.png", "overlap.png"}
SPEAKERS, TEXTS = 15, 20


def corpus(work, seed: int = 0, named: bool = True, nuisance: bool = False):
    """15 speakers in 3 cohorts read 20 sentences; two layers, of which the second is noise. The sentence moves most,
    in few directions, so that sentences outside the sample are no surprise.

    With `nuisance` the vector holds the duration instead of any voice. Returns the rows' cohorts.
    """
    random = np.random.default_rng(seed)
    speaker, text = (grid.ravel() for grid in np.meshgrid(np.arange(SPEAKERS), np.arange(TEXTS)))
    rows = len(speaker)
    cohort = speaker % 3
    seconds = random.choice([1.0, 3.0, 9.0], rows) + random.uniform(0, 0.5, rows)
    voice_PU = random.normal(size=(3, 24))[np.arange(SPEAKERS) % 3] + 0.15 * random.normal(size=(SPEAKERS, 24))
    text_XU = 3 * random.normal(size=(TEXTS, 4)) @ random.normal(size=(4, 24))
    x_NU = voice_PU[speaker] + text_XU[text] + 0.9 * random.normal(size=(rows, 24))
    if nuisance:
        x_NU = 8 * np.round(seconds / 4)[:, None] * random.normal(size=24) + random.normal(size=(rows, 24))
    part = np.where(text < 16, "train", np.where(text < 18, "dev", "test"))
    columns = {name: [""] * rows for name in COLUMNS} | {
        "id": [f"u{row}" for row in range(rows)],
        "audio": [f"u{row}.wav" for row in range(rows)],
        "text": [f"sentence {number}" for number in text],
        "speaker": [f"S{number:02d}" if named else "" for number in speaker],
        "cohort": [("typical", "slow", "breathy")[number] for number in cohort],
        "seconds": seconds,
        "silence": random.uniform(0.1, 0.3, rows),
        "snr": np.full(rows, np.nan),
        "split": part.tolist(),
        "sample": ((part == "train") & (text % 2 == 0)).tolist(),
    }
    Manifest.from_columns(columns).save(work.path("describe", "manifest.parquet"))
    work.path("embed").mkdir()
    order = random.permutation(rows)  # the embeddings need not stand in the manifest's order
    np.savez(
        work.path("embed", "embeddings.npz"),
        id=np.asarray(columns["id"])[order],
        embedding=np.concatenate([x_NU, random.normal(size=(rows, 24))], axis=1)[order].astype(np.float32),
        layer_names=np.array(["h1", "h2"]),
    )
    return cohort


def settings(num_experts: int = 3, **changes) -> ConfigDict:
    config = ConfigDict({**fields.defaults(stage.SECTIONS), "gate": {"num_experts": num_experts}, "seed": 0})
    config.cluster.update({"layers": ("h1",), **changes})
    for section in ("auto", "gmm", "kmeans", "ward"):
        config.cluster[section].max_clusters = 5
    config.cluster.auto.methods = ("kmeans", "ward")
    return config.lock()


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path / "run", quiet=True)


def arrays(work) -> dict:
    with np.load(work.path("cluster", "clusters.npz"), allow_pickle=False) as file:
        return dict(file)


def test_cohorts_of_speakers_are_found_and_everybody_is_assigned(work):
    cohort = corpus(work)
    result = stage.run(settings(), work)
    found = arrays(work)
    assert {path.name for path in work.path("cluster").iterdir()} == CLUSTER_FILES
    assert found["id"].tolist() == [f"u{row}" for row in range(len(cohort))]
    assert found["membership"].shape == (len(cohort), 3)
    np.testing.assert_allclose(found["membership"].sum(axis=1), 1.0, atol=1e-5)
    assert found["keep"].all() and set(found["label"]) <= {0, 1, 2}
    assert result["level"] == "speaker" and result["num_experts"] == 3
    assert result["ari"]["found"]["cohort"] > 0.9 and result["ari"]["speakers"]["cohort"] > 0.9
    assert result["ari"]["sample"]["cohort"] > 0.9
    assert result["ari"]["heldout"]["cohort"] > 0.9 > 0.1 > result["ari"]["heldout"]["text"]
    # dev and test were assigned by their sound, nobody's name was used
    manifest = Manifest.load(work.path("describe", "manifest.parquet"))
    by, part = found["by"], manifest.column("split")
    assert set(by[part != "train"]) == {"sound"} and set(by[part == "train"]) == {"fit", "speaker"}
    assert set(by[manifest.column("sample")]) == {"fit"}
    # the gate's projection: sentences gone, unit variance within a speaker
    with np.load(work.path("embed", "embeddings.npz")) as file:
        row_of = {name: row for row, name in enumerate(file["id"])}
        x_NU = file["embedding"][[row_of[name] for name in found["id"]]]
    z_NK = ((x_NU - found["proj_mean"]) @ found["proj_matrix"])[manifest.column("sample")]
    speaker = manifest.column("speaker")[manifest.column("sample")]
    within = np.concatenate([z_NK[speaker == p] - z_NK[speaker == p].mean(axis=0) for p in np.unique(speaker)])
    np.testing.assert_allclose(np.mean(within**2, axis=0), 1.0, rtol=1e-3)


@pytest.mark.parametrize("level", ["speaker", "utterance"])
def test_groups_that_the_corpus_names_are_taken_as_they_are(work, level):
    cohort = corpus(work)
    result = stage.run(settings(method="known", level=level), work)
    assert result["method"] == "known" and result["found"] == 3 and result["ari"]["found"]["cohort"] == 1
    found = arrays(work)
    order = {name: row for row, name in enumerate(found["id"])}
    label_N = found["label"][[order[f"u{row}"] for row in range(len(cohort))]]
    fitted_N = found["by"][[order[f"u{row}"] for row in range(len(cohort))]] == "fit"
    assert fitted_N.any() and len({(a, b) for a, b in zip(label_N[fitted_N], cohort[fitted_N], strict=True)}) == 3
    assert np.mean(label_N == np.array([label_N[fitted_N & (cohort == c)][0] for c in cohort])) > 0.9  # by sound
    merged = stage.run(settings(num_experts=2, method="known", level=level), work)
    assert merged["num_clusters"] == 2


def test_the_corpus_must_name_two_groups(work):
    corpus(work)
    manifest = Manifest.load(work.path("describe", "manifest.parquet"), root=work.root)
    columns = {name: manifest.column(name).tolist() for name in COLUMNS} | {"cohort": ["all"] * len(manifest)}
    Manifest.from_columns(columns).save(work.path("describe", "manifest.parquet"))
    with pytest.raises(ValueError, match="names 1 cohort"):
        stage.run(settings(method="known"), work)


def test_the_utterance_level_follows_the_sentence(work):
    corpus(work)
    result = stage.run(settings(num_experts=10, level="utterance", noise="drop", method="hdbscan", remove=()), work)
    explained = result["explained"]["sample"]
    assert explained["text"] > 0.7 and explained["cohort"] < 0.15
    found = arrays(work)
    assert (found["label"] < 0).sum() == (~found["keep"]).sum()


def test_freed_of_the_words_utterances_follow_the_voice_instead(work):
    corpus(work)
    result = stage.run(settings(num_experts=3, level="utterance"), work)
    assert result["explained"]["sample"]["cohort"] > 0.5 > 0.2 > result["explained"]["sample"]["text"]


def test_layer_method_and_number_are_chosen_without_labels(work):
    """The layer that holds a voice is taken, not the one of noise; other cohorts in the manifest change nothing."""
    cohort = corpus(work)
    result = stage.run(settings(layers=("auto",)), work)
    report = json.loads(work.path("cluster", "agreement.json").read_text())
    assert result["signal"] == "h1" and result["found"] == 3 and result["ari"]["found"]["cohort"] > 0.9
    rows = report["candidates"]
    assert {row["signal"] for row in rows} == {"h1", "h2", "h1+h2"} and sum(row["chosen"] for row in rows) == 1
    assert len(rows) == 3 * 2 * 4  # sets of layers, methods, numbers of clusters
    before = arrays(work)
    path = work.path("describe", "manifest.parquet")
    manifest = Manifest.load(path)
    columns = {name: manifest.column(name).tolist() for name in COLUMNS}
    columns["cohort"] = [f"c{number}" for number in np.random.default_rng(0).permutation(cohort)]
    Manifest.from_columns(columns).save(path)
    shuffled = stage.run(settings(layers=("auto",)), work)
    np.testing.assert_array_equal(before["label"], arrays(work)["label"])
    assert abs(shuffled["ari"]["found"]["cohort"]) < 0.2


def test_the_adaptation_signal_is_clustered_in_place_of_the_embedding(work):
    """Gradients know another grouping than the embedding; the sample follows them, the others are told by sound."""
    corpus(work)
    with pytest.raises(FileNotFoundError, match="embed.signals="):
        stage.run(settings(signal="gradient"), work)
    random = np.random.default_rng(7)
    manifest = Manifest.load(work.path("describe", "manifest.parquet"))
    number = np.array([int(name[1:]) for name in manifest.column("speaker")])
    rows = np.flatnonzero(manifest.column("sample"))
    centre_CU = random.normal(size=(2, 10))
    gradient = centre_CU[number[rows] // 8] + 0.3 * random.normal(size=(len(rows), 10))
    np.savez(
        work.path("embed", "gradients.npz"),
        id=manifest.column("id")[rows].astype(str),
        block_names=["encoder"],
        gradient=gradient.astype(np.float32),
    )
    result = stage.run(settings(num_experts=2, signal="gradient"), work)
    assert (result["signal"], result["found"]) == ("encoder", 2)
    fitted = arrays(work)["label"][rows]
    assert all(len(set(fitted[number[rows] // 8 == half])) == 1 for half in (0, 1)) and len(set(fitted)) == 2


@pytest.mark.parametrize("method", ["hdbscan", "gmm", "kmeans", "ward"])
def test_every_method_and_noise_policy_gives_whole_rows(work, method):
    cohort = corpus(work)
    policy = {"hdbscan": "uniform", "gmm": "drop", "kmeans": "nearest", "ward": "soft"}[method]
    result = stage.run(settings(num_experts=5, method=method, noise=policy, refits=0, map="lda"), work)
    found = arrays(work)
    assert result["num_experts"] == found["membership"].shape[1] == 5 and result["stability"] is None
    np.testing.assert_allclose(found["membership"].sum(axis=1), 1.0, atol=1e-5)
    assert len(found["label"]) == len(cohort) and found["centroids"].shape[0] == 5


def test_only_the_sample_decides(work, tmp_path):
    """Other utterances may be anything: what was fitted stays the same, bit for bit."""
    corpus(work)
    stage.run(settings(), work)
    before = arrays(work)
    fitted = before["by"] == "fit"
    path = work.path("embed", "embeddings.npz")
    with np.load(path) as file:
        stored = dict(file)
    outside = ~np.isin(stored["id"], before["id"][fitted])
    stored["embedding"][outside] = 100.0
    np.savez(path, **stored)
    stage.run(settings(), work)
    after = arrays(work)
    np.testing.assert_array_equal(before["membership"][fitted], after["membership"][fitted])
    for name in ("centroids", "pca_matrix", "proj_matrix"):
        np.testing.assert_array_equal(before[name], after[name])


def test_clusters_of_durations_raise_the_alarm(work):
    corpus(work, nuisance=True)
    result = stage.run(settings(level="utterance", method="hdbscan", remove=()), work)
    assert any("seconds explains" in line for line in result["warnings"])
    assert "WARNING" in work.path("cluster", "agreement.md").read_text()
    assert json.loads(work.path("cluster", "agreement.json").read_text())["warnings"] == result["warnings"]


def test_clusters_of_voices_do_not(work):
    corpus(work)
    assert stage.run(settings(), work)["warnings"] == []


def test_without_names_voices_are_grouped_first(work):
    """Nobody's name is known, yet the cohorts are found; the log and the report say how."""
    cohort = corpus(work, named=False)
    result = stage.run(settings(), work)
    log = work.path("log.txt").read_text()
    assert result["level"] == "voice" and "voices are grouped by their sound" in log
    assert result["ari"]["found"]["cohort"] > 0.7 and "speaker" not in result["ari"]["found"]
    assert "fitted on the clusters" in log and "proj_matrix" in arrays(work)
    found = arrays(work)
    assert set(found["by"]) == {"fit", "sound"} and len(found["label"]) == len(cohort)


def test_voices_are_compared_with_the_speakers_where_these_are_known(work):
    corpus(work)
    stage.run(settings(level="voice"), work)
    voices = json.loads(work.path("cluster", "agreement.json").read_text())["voices"]
    assert voices["layer"] == "h1" and voices["speaker"]["ami"] > 0.25
    assert "Voices, grouped by layer h1" in work.path("cluster", "agreement.md").read_text()


def test_more_experts_than_speakers_shrink_and_none_asks_for_no_projection(work):
    corpus(work)
    result = stage.run(settings(num_experts=SPEAKERS + 5, discriminant="none"), work)
    assert (result["match"], result["num_experts"]) == ("shrink", SPEAKERS)
    assert "proj_matrix" not in arrays(work)


@pytest.mark.parametrize("how", figures.PLANES)
def test_the_map_is_an_image_with_room_for_many_speakers(tmp_path, how):
    random = np.random.default_rng(0)
    label = np.arange(100) % 7 - 1
    names = {"cluster": label, "cohort": label.astype(str), "speaker": np.array([f"_{n % 45}" for n in range(100)])}
    figures.write_map(tmp_path / "map.png", random.normal(size=(100, 4)), names, how=how)
    assert (tmp_path / "map.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]


def test_mistakes_are_one_line_and_leave_nothing(work):
    with pytest.raises(FileNotFoundError, match="no file"):
        stage.run(settings(), work)
    corpus(work)
    with pytest.raises(ValueError, match="cluster.layers names 'h9'; the embedding has: h1, h2"):
        stage.run(settings(layers=("h9",)), work)
    assert not work.path("cluster").exists()
    work.path("embed", "embeddings.npz").unlink()
    with pytest.raises(FileNotFoundError, match="moejax embed"):
        stage.run(settings(), work)


def nothing(kind: str, shape: tuple, random) -> np.ndarray:
    """Embeddings in which there is nothing to find."""
    x_NU = random.normal(size=shape)
    if kind == "equal":
        x_NU = np.tile(x_NU[:1], (len(x_NU), 1))
    elif kind == "zero":
        x_NU = np.zeros(shape)
    elif kind == "line":
        x_NU = np.outer(x_NU[:, 0], np.ones(shape[1]))
    elif kind == "two points":
        x_NU = np.tile(x_NU[:2], (len(x_NU), 1))[: len(x_NU)]
    elif kind == "one apart":
        x_NU = np.zeros(shape)
        x_NU[0] = 1.0
    elif kind == "huge":
        x_NU = 1e18 * x_NU
    elif kind == "not finite":
        x_NU[3, 1], x_NU[5, 0] = np.nan, np.inf
    return x_NU.astype(np.float32)


@pytest.mark.parametrize("level", ["speaker", "voice", "utterance"])
@pytest.mark.parametrize("kind", ["noise", "equal", "zero", "line", "two points", "one apart", "huge", "not finite"])
def test_embeddings_without_clusters_give_whole_rows_or_one_line(work, kind, level):
    """Whatever the method: memberships that sum to one, or an error that names the stage; never NaN."""
    corpus(work)
    file = work.path("embed", "embeddings.npz")
    with np.load(file) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    held["embedding"] = nothing(kind, held["embedding"].shape, np.random.default_rng(1))
    np.savez(file, **held)
    refused = 0
    for method in ("auto", "hdbscan"):
        try:
            stage.run(settings(num_experts=4, method=method, level=level), work)
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith("cluster: "), error
            assert not work.path("cluster", "clusters.npz").exists()
            continue
        with np.load(work.path("cluster", "clusters.npz")) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        keep_N = found["keep"]
        assert keep_N.any() and (found["label"][keep_N] >= 0).all()
        np.testing.assert_allclose(found["membership"][keep_N].sum(1), 1, atol=1e-5)
        assert all(np.isfinite(array).all() for array in found.values() if array.dtype.kind == "f")
        work.path("cluster", "clusters.npz").unlink()
    alike = level == "voice" and kind in ("equal", "zero", "one apart")
    assert refused == (2 if kind == "not finite" or alike else 0)
