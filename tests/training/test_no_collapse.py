"""The nine ways in which an earlier system failed unnoticed, each a test on the real step and a real Whisper."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.data import splits
from moejax.nn import functional
from moejax.ops import pooling, routing
from moejax.runtime import sharding
from moejax.systems import registry
from moejax.tasks import asr, recognition
from moejax.training.load_monitor import LoadMonitor
from moejax.work.folder import Work

E, U = tiny.E, tiny.U
UNIFORM = (1 / E,) * E


def one_step(row, mixture, bias):
    """({path: changed}, metrics) of one joint step from awake experts."""
    graphdef, params = tiny.model(mixture)
    params = tiny.with_gate_bias(params, bias)
    loss_fn = tiny.loss_of(graphdef, row, mixture, UNIFORM)[0]
    now, frozen, step = tiny.trainer(loss_fn, params, ("expert", "gate"))
    now, metrics = step(now, frozen, tiny.batch())
    return tiny.changed(params, {**frozen, **now.params}), metrics, params, now.params


def moved_experts(before, after):
    """{path: [E] bool} of the stacked arrays."""
    before, after = functional.paths(before["expert"]), functional.paths(after["expert"])
    return {path: np.any(np.asarray(before[path] != after[path]), axis=(1, 2)).tolist() for path in before}


SOME = ("encoder/layers/*/fc1", "decoder/layers/*/self_attn/v", "decoder/layers/*/cross_attn/q")


@pytest.mark.parametrize(
    ("kind", "k", "chosen", "targets"),
    [("topk", 1, [0], SOME), ("topk", 2, [0, 1], tiny.EVERYWHERE), ("dense", 2, [0, 1, 2, 3], SOME)],
)
def test_1_a_joint_step_moves_the_chosen_experts_and_the_gate_and_nothing_else(kind, k, chosen, targets):
    mixture = asr.Mixture(targets, num_experts=E, rank=2, alpha=4.0, routing=kind, top_k=k)
    # No balance and no z: what moves the gate here is the loss of recognition, through the mixture's weights.
    bias = {("topk", 1): [4.0, 0.0, 0.0, 0.0], ("topk", 2): [4.5, 4.0, 0.0, 0.0]}.get((kind, k), [0.0] * E)
    what, metrics, before, after = one_step(tiny.GATE_ROW, mixture, bias)
    moved = moved_experts(before, after)
    assert len(moved) == 2 * (16 if targets == tiny.EVERYWHERE else 3)
    for path, which in moved.items():
        assert which == [e in chosen for e in range(E)], path
    assert not any(change for path, change in what.items() if path.split("/")[0] in ("backbone", "buffer"))
    assert what["gate/gate/kernel"] and what["gate/gate/bias"]
    load_E = np.asarray(metrics["load_EC"]).sum(1)
    assert load_E.sum() == pytest.approx(8, rel=1e-5) and (load_E > 1e-3).tolist() == [e in chosen for e in range(E)]


def test_1_what_the_gate_says_decides_the_loss():
    graphdef, params = tiny.model()
    loss_fn = tiny.loss_of(graphdef)[1]
    key, data = jax.random.key(0), tiny.batch()
    losses = [float(loss_fn(tiny.with_gate_bias(params, 20 * np.eye(E)[e]), data, key)[0]) for e in range(E)]
    label = tiny.loss_of(graphdef, asr.Row(route="label"))[1]
    want = [float(label(params, tiny.replace(data, label_B=np.full(8, e, np.int32)), key)[0]) for e in range(E)]
    np.testing.assert_allclose(losses, want, rtol=1e-4)
    assert np.ptp(want) > 1e-2


def expected_leaves(groups):
    """The trainable leaves written out, from the network's plan and not from its code."""
    attention, mlp = ("self_attn/q", "self_attn/k", "self_attn/v", "self_attn/out"), ("fc1", "fc2")
    cross = tuple(name.replace("self", "cross") for name in attention)
    layers = [f"encoder/layers/0/{n}" for n in attention + mlp]
    layers += [f"decoder/layers/0/{n}" for n in attention + cross + mlp]
    width = {"fc1": (32, 48), "fc2": (48, 32)}
    lines = []
    for layer in layers if "expert" in groups else ():
        d_in, d_out = width.get(layer.rsplit("/", 1)[1], (32, 32))
        lines += [f"expert/{layer}/experts/A ({E}, {d_in}, 2)", f"expert/{layer}/experts/B ({E}, 2, {d_out})"]
    if "gate" in groups:
        lines += [f"gate/gate/kernel ({U}, {E})", f"gate/gate/bias ({E},)"]
    return sorted(lines)


@pytest.mark.parametrize("groups", [("gate",), ("expert",), ("expert", "gate")])
def test_2_trainable_leaves_are_the_expected_and_the_optimizer_covers_exactly_them(groups):
    graphdef, params = tiny.model()
    leaves = [
        f"{group}/{path} {leaf.shape}" for group in groups for path, leaf in functional.paths(params[group]).items()
    ]
    assert sorted(leaves) == expected_leaves(groups)
    now, frozen, _ = tiny.trainer(tiny.loss_of(graphdef)[0], params, groups)
    assert not set(frozen) & set(groups) and set(frozen) | set(groups) == set(params)
    for moment in ("mu", "nu"):
        held = [
            f"{sharding.path_string(path).split(f'{moment}/')[1]} {leaf.shape}"
            for path, leaf in jax.tree_util.tree_leaves_with_path(now.opt_state)
            if f"{moment}/" in sharding.path_string(path)
        ]
        assert sorted(held) == expected_leaves(groups)


def test_3_adapter_changes_the_logits_after_training_and_not_before():
    graphdef, params = tiny.model(awake=False)
    data = tiny.replace(tiny.batch(), label_B=np.ones(8, np.int32))
    mel_BNM = np.random.default_rng(1).normal(size=(8, 32, 20)).astype(np.float32)

    @jax.jit  # one program for every label, so that equal means equal in every bit
    def logits(params, label_B):
        model, route = functional.merge(graphdef, params), routing.one_hot(label_B)
        return model.decode(data.tokens_BL, model.encode(mel_BNM, route=route), route=route)

    off, mine, other = (np.full(8, label, np.int32) for label in (-1, 1, 2))
    base = np.asarray(logits(params, off))
    np.testing.assert_array_equal(logits(params, mine), base)
    now, frozen, step = tiny.trainer(tiny.loss_of(graphdef, asr.Row(route="label"))[0], params, ("expert",))
    for _ in range(3):
        now, _ = step(now, frozen, data)
    trained = {**frozen, **now.params}
    assert np.abs(logits(trained, mine) - base).max() > 1e-2
    np.testing.assert_array_equal(logits(trained, other), base)  # another label's adapter has learnt nothing
    np.testing.assert_array_equal(logits(trained, off), base)


PLANTED_WORDS = [[1, 2], [3, 4], [5, 6], [7, 8]]
PLANTED_MIXTURE = asr.Mixture(("decoder/layers/0/fc?",), num_experts=E, rank=2, alpha=8.0, routing="topk", top_k=2)
SKEWED = (0.4, 0.3, 0.2, 0.1)


@functools.cache
def planted(prior, seed=0, rows=160):
    """Four cohorts that say different words; nothing in the audio tells them apart, only the gate's input does."""
    rng = np.random.default_rng(seed)
    cohort = rng.permutation(np.repeat(np.arange(E), np.round(np.asarray(prior) * rows).astype(int)))
    gate_in = 2.5 * np.eye(U)[cohort] + 0.5 * rng.normal(size=(rows, U))
    made = tiny.collator(
        rows, words=[PLANTED_WORDS[c] for c in cohort], samples=np.full(rows, 6000), cohorts=cohort, gate_in=gate_in
    )
    return made, cohort


def pretrained_gate(graphdef, params, prior, steps=15):
    """The gate stage: a few steps on the cohorts themselves."""
    made, cohort = planted(prior)
    now, frozen, step = tiny.trainer(asr.make_gate_loss(graphdef, E), params, ("gate",), learning_rate=3e-2)
    for n in range(steps):
        pick = np.random.default_rng(n).choice(len(cohort), 32, replace=False)
        target_BE = np.eye(E, dtype=np.float32)[cohort[pick]]
        now, _ = step(
            now,
            frozen,
            {"embedding_BU": made.gate_in[pick], "target_BE": target_BE, "weight_B": np.ones(32, np.float32)},
        )
    return {**frozen, **now.params}


@functools.cache
def joint_run(balance, prior, start, steps=120):
    """Joint training on the planted cohorts: (monitor, last alarms, purity and loads on unseen rows, cross-entropy)."""
    made, cohort = planted(prior)
    graphdef, params = tiny.model(PLANTED_MIXTURE, awake=False)
    if start == "collapsed":  # every utterance chooses experts 0 and 1
        params = tiny.with_gate_bias(params, [5.0, 4.0, 0.0, 0.0])
    else:
        params = pretrained_gate(graphdef, params, prior)
    row = asr.Row(route="gate", balance=balance, z=1e-3)
    loss_fn = tiny.loss_of(graphdef, row, PLANTED_MIXTURE, prior, cohorts=E)[0]
    now, frozen, step = tiny.trainer(loss_fn, params, ("expert", "gate"), learning_rate=3e-2, warmup=5)
    monitor, rng = LoadMonitor(E, "ABCD", prior), np.random.default_rng(1)
    for n in range(steps):
        now, metrics = step(now, frozen, made(tiny.BUCKET, rng.choice(len(cohort), 32, replace=False)))
        alarms = monitor(n, {name: np.asarray(metrics[name]) for name in ("load_EC", "top1_E")})
    unseen, cohort = planted(prior, seed=7)
    choice = np.asarray(asr.make_gate(graphdef)({**frozen, **now.params}, unseen.gate_in)).argmax(1)
    purity = sum(np.bincount(cohort[choice == e]).max() for e in set(choice)) / len(cohort)
    return monitor, alarms, purity, np.bincount(choice, minlength=E) / len(choice), float(metrics["ce"])


@pytest.mark.parametrize(
    ("balance", "prior", "start"), [(0.3, UNIFORM, "collapsed"), (0.1, SKEWED, "pretrained")], ids=lambda x: str(x)
)
def test_4_router_finds_the_planted_cohorts_and_no_expert_takes_twice_its_prior(balance, prior, start):
    monitor, alarms, purity, load_E, ce = joint_run(balance, prior, start)
    assert purity > 0.95
    assert (load_E <= 2 * np.asarray(prior)).all() and (monitor.load() <= 2 * np.asarray(prior)).all(), monitor.table()
    assert alarms == [] and ce < 0.5


def test_4_without_the_balance_loss_a_collapsed_gate_stays_so_and_the_alarm_fires():
    monitor, alarms, purity, load_E, _ = joint_run(0.0, UNIFORM, "collapsed")
    assert purity < 0.7 and (load_E == 0).any()
    dead = [e for e in range(E) if monitor.load()[e] < 0.1 / E]
    dying = [alarm.split(" has ")[0] for alarm in alarms if "dying" in alarm]
    assert dead and dying == [f"ALARM: expert {e}" for e in dead]
    assert monitor.top1() @ (load_E == 0) < 0.05 and monitor.said is not None


def test_4_alarm_waits_for_a_full_window_and_forgets_what_has_left_it():
    monitor = LoadMonitor(2, ["A"], [0.5, 0.5], window=3)
    dead, alive = np.array([[8.0], [0.0]]), np.array([[4.0], [4.0]])
    even = np.array([4.0, 4.0])
    seen = [dead, dead, dead, alive, dead, dead, dead]
    assert [len(monitor(n, {"load_EC": x, "top1_E": even})) for n, x in enumerate(seen)] == [0, 0, 1, 0, 0, 0, 1]
    assert monitor(9, {"loss": 1.0}) == [] and "expert 1" in monitor.table()


def test_4_alarm_sees_a_collapsed_choice_behind_even_weights_and_says_it_once():
    monitor = LoadMonitor(2, ["A"], [0.5, 0.5], window=2)
    even, one, other = np.array([[4.2], [3.8]]), np.array([8.0, 0.0]), np.array([4.0, 4.0])
    said = [monitor(n, {"load_EC": even, "top1_E": x}) for n, x in enumerate([one, one, one, other, other, one, one])]
    assert [len(lines) for lines in said] == [0, 1, 0, 0, 0, 0, 1]
    assert "expert 0 is the top of 100.0 % of the utterances (prior 50.0 %); (almost) never: 1" in said[1][0]


def test_5_a_model_overfitted_to_two_tokens_stops_after_them():
    graphdef, params = tiny.model(None)
    data = tiny.batch(8, words=[[3, 7]] * 16)
    ends_B = ((data.targets_BL == tiny.EOT) & data.score_BL).sum(1)
    assert ends_B.tolist() == [1] * 8 and data.score_BL.sum() == 8 * 3
    now, frozen, step = tiny.trainer(tiny.loss_of(graphdef, asr.Row(), None)[0], params, ("backbone",), warmup=5)
    for _ in range(40):
        now, metrics = step(now, frozen, data)
    assert metrics["ce"] < 0.1
    predict = recognition.make_predict(graphdef, prefix=tiny.PREFIX, eot=tiny.EOT, max_tokens=8)
    decoded, _ = predict({**frozen, **now.params}, data.audio_BS, data.samples_B, data.label_B)
    assert decoded.lengths_B.tolist() == [2] * 8
    assert decoded.tokens_BL[:, :3].tolist() == [[3, 7, tiny.EOT]] * 8


def some_gradients():
    """Jitted ((loss, metrics), gradients) of joint training, and its parameters."""
    mixture = dataclasses.replace(tiny.MIXTURE, targets=SOME)
    graphdef, params = tiny.model(mixture)
    return tiny.loss_of(graphdef, asr.Row(route="gate", balance=0.5, z=0.1), mixture, UNIFORM)[2], params


def test_5_padding_moves_neither_loss_nor_gradients_and_the_end_token_does():
    grads, params = some_gradients()
    data, key = tiny.batch(), jax.random.key(0)
    padding_BL = ~data.score_BL
    padding_BL[:, : len(tiny.PREFIX) - 1] = False
    junk = tiny.replace(data, targets_BL=np.where(padding_BL, 5, data.targets_BL))
    (loss, _), grad = grads(params, data, key)
    (loss_junk, _), grad_junk = grads(params, junk, key)
    assert float(loss) == float(loss_junk)
    assert not any(tiny.changed(grad, grad_junk).values())
    is_end_BL = data.score_BL & (data.targets_BL == tiny.EOT)
    (loss_other, _), _ = grads(params, tiny.replace(data, targets_BL=np.where(is_end_BL, 5, data.targets_BL)), key)
    assert abs(float(loss_other) - float(loss)) > 1e-3


def test_5_filler_rows_move_nothing():
    grads, params = some_gradients()
    made, key = tiny.collator(), jax.random.key(0)
    data = made(tiny.BUCKET, np.array([0, 1, 2, 3, 4, -1, -1, -1]))
    junk = tiny.replace(
        data,
        gate_in_BU=np.where(data.real_B[:, None], data.gate_in_BU, 9.0).astype(np.float32),
        targets_BL=np.where(data.real_B[:, None], data.targets_BL, 4),
    )
    (loss, metrics), grad = grads(params, data, key)
    (loss_junk, metrics_junk), grad_junk = grads(params, junk, key)
    np.testing.assert_allclose(loss, loss_junk, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8), grad, grad_junk)
    assert metrics["load_EC"].sum() == pytest.approx(5, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), metrics, metrics_junk)


def embeddings(mask_padding, samples, bucket, *, trim, how="mean_std", layers=(0, 1, -1)):
    """Embedding of one tone of 6000 samples, `samples - 6000` of silence appended, in a buffer of `bucket`."""
    config = dataclasses.replace(tiny.CONFIG, mask_padding=mask_padding)
    graphdef, params = tiny.model(None, config=config)
    audio_BS = np.zeros((1, bucket), np.float32)
    audio_BS[0, :6000] = tiny.wave(1, 6000)
    run = asr.make_embed(graphdef, asr.Embedding(layers, how, trim))
    return np.asarray(run(params, audio_BS, np.array([samples], np.int32)))[0]


def test_6_embedding_does_not_change_when_silence_is_appended():
    # A published model hears a fixed window: silence that joins the utterance was in it before. Equal in every bit.
    short, long = (embeddings(False, samples, tiny.BUCKET, trim=True) for samples in (6000, 10000))
    np.testing.assert_array_equal(short, long)
    # A micro model hears a buffer of any length and masks the padding.
    short, long = (embeddings(True, 6000, bucket, trim=False) for bucket in (tiny.BUCKET, 2 * tiny.BUCKET))
    np.testing.assert_allclose(short, long, atol=1e-4)
    assert np.std(short) > 0.1


def test_6_unmasked_pooling_fails_the_same_test(monkeypatch):
    def everything(samples_B, T, hop):
        return jnp.ones((samples_B.shape[0], T), bool)

    monkeypatch.setattr(pooling, "valid_frames", everything)
    short, long = (embeddings(False, 6000, bucket, trim=False) for bucket in (tiny.BUCKET, 2 * tiny.BUCKET))
    assert np.abs(short - long).max() > 0.05


@pytest.mark.parametrize(
    ("kind", "route", "targets"),
    [("topk", "gate", tiny.EVERYWHERE), ("dense", "gate", SOME[1:]), ("topk", "label", SOME)],
    ids=["topk", "dense, decoder only", "label"],
)
def test_7_mixture_scores_in_training_what_it_decodes(kind, route, targets):
    """What decoding says of its own words, training says of them too: log-probabilities token by token add up."""
    mixture = asr.Mixture(targets, num_experts=E, rank=2, alpha=4.0, shared_rank=2, routing=kind, top_k=2)
    embedding = asr.Embedding((0, -1), "mean", True)
    gate = {"mean": np.zeros(64), "matrix": 10 * np.eye(64, 6), "hidden": 5, "zero_start": False}
    graphdef, params = asr.init(asr.build(tiny.CONFIG, mixture=mixture, gate=gate))
    params = tiny.wake(params)
    decoder = params["backbone"]["decoder"]  # the output is tied to the input: wide positions stop it from echoing
    params["backbone"]["decoder"] = {**decoder, "positions": 200 * decoder["positions"]}
    data, limit = tiny.batch(), 8
    predict = recognition.make_predict(
        graphdef, prefix=tiny.PREFIX, eot=tiny.EOT, max_tokens=limit, route=route, mixture=mixture, embedding=embedding
    )
    decoded, weight_BE = predict(params, data.audio_BS, data.samples_B, data.label_B)
    ids_BL = np.concatenate([np.tile(tiny.PREFIX, (8, 1)), np.asarray(decoded.tokens_BL)], axis=1)
    at_BL = np.arange(ids_BL.shape[1] - 1)[None] - (len(tiny.PREFIX) - 1)
    spoken = tiny.replace(
        data,
        tokens_BL=ids_BL[:, :-1],
        targets_BL=ids_BL[:, 1:],
        score_BL=(at_BL >= 0) & (at_BL <= np.asarray(decoded.lengths_B)[:, None]),
        gate_in_BU=np.asarray(asr.make_embed(graphdef, embedding)(params, data.audio_BS, data.samples_B)),
    )
    loss_fn = tiny.loss_of(graphdef, asr.Row(route=route), mixture)[1]
    loss, metrics = loss_fn(params, spoken, jax.random.key(1))
    assert float(metrics["accuracy"]) == 1.0  # the most likely token there is the one decoded here
    np.testing.assert_allclose(loss * spoken.score_BL.sum(), -decoded.sum_logprob_B.sum(), rtol=1e-4)
    assert len(np.unique(decoded.tokens_BL)) >= 3 and np.ptp(np.asarray(weight_BE), axis=0).max() > 0.05
    if route == "gate":
        share_BE = np.asarray(weight_BE) / np.asarray(weight_BE).sum(1, keepdims=True)
        np.testing.assert_allclose(metrics["load_EC"].sum(1), share_BE.sum(0), rtol=1e-4)


def corpus_columns(cohorts="ABC", speakers=5, prompts=12):
    names = ("id", "text", "speaker", "cohort", "prompt", "split")
    rows = [
        (f"{c}{s}-{p}", f"say {p}", f"{c}{s}", c, f"p{p}", "")
        for c in cohorts
        for s in range(speakers)
        for p in range(prompts)
    ]
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


@pytest.mark.parametrize(
    ("scheme", "column", "options"),
    [
        ("speaker_disjoint", "speaker", {}),
        ("prompt_disjoint", "prompt", {}),
        ("per_speaker", "prompt", {"prompts": "disjoint"}),
        ("per_speaker", "id", {}),
    ],
)
def test_8_nothing_stands_in_two_parts_of_a_split_that_promises_so(scheme, column, options):
    columns = corpus_columns()
    parts = splits.assign(columns, scheme=scheme, seed=1, **options)
    assert set(parts) == {"train", "dev", "test"}
    places = set(zip(columns[column], parts, strict=True))
    assert len(places) == len(set(columns[column]))
    leaks = [row for row in splits.leakage({**columns, "split": parts}) if row["what"] == column]
    assert leaks and all(row["shared"] == 0 for row in leaks)


def test_8_split_is_the_same_for_a_cohort_and_for_all():
    everybody, alone = corpus_columns("ABC"), corpus_columns("B")
    whole = dict(zip(everybody["id"], splits.assign(everybody, scheme="per_speaker", seed=1), strict=True))
    part = dict(zip(alone["id"], splits.assign(alone, scheme="per_speaker", seed=1), strict=True))
    assert part and all(whole[name] == where for name, where in part.items())


def test_9_asking_for_an_unknown_adapter_raises_and_names_the_known(tmp_path):
    class Trained:
        work = Work(tmp_path, quiet=True)

    (tmp_path / "adapters").mkdir()
    entry = {"kind": "cohort", "label": 0, "rank": 4, "trainable": 10}
    (tmp_path / "adapters" / "index.json").write_text(json.dumps({"lora_A": entry, "lora_B": entry}))
    with pytest.raises(KeyError, match="lora_C.*base, lora_A, lora_B"):
        registry.open_system(Trained, "lora_C")
    with pytest.raises(KeyError, match="'moe'.*base, lora_A, lora_B"):  # not trained here
        registry.open_system(Trained, "moe")
