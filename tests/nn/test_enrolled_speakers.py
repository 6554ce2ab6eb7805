"""Heads that know speakers by enrolments: what they are counted by, what must not change them, and that they learn."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moejax.nn import enrolled_speakers, functional
from moejax.nn.diarizers import Sizes
from moejax.nn.enrolled_speakers import EnrolledDecoder, TargetSpeakers
from moejax.nn.variables import Init
from moejax.tasks import diarization as task

D, H, F, S, T = 16, 2, 24, 3, 40
HEADS = {"aed": dict(head="aed"), "aed_ee": dict(head="aed", enhance=True), "tsvad": dict(head="tsvad")}
SIZES = Sizes(hears=(12,), most=S, width=D, heads=H, layers=1, ffn=F)


def talks(seed, count=16):
    """Talks of two or three speakers, each a direction; turns of ten frames, some silent, some of two speakers."""
    rng = np.random.default_rng(seed)
    active = np.zeros((count, T, S), bool)
    speakers = rng.integers(2, S + 1, count)
    for b, turn in itertools.product(range(count), range(0, T, 10)):
        kind = rng.random()
        who = rng.permutation(speakers[b])[: 0 if kind < 0.1 else 2 if kind > 0.9 else 1]
        active[b, turn : turn + 10, who] = True
    order = np.argsort(~active.any(1), axis=1, kind="stable")  # who is silent stands last
    active = np.take_along_axis(active, order[:, None], axis=2)
    voice = rng.normal(size=(count, S, 12)) * 2
    heard = np.einsum("bts,bsd->btd", active, voice) + rng.normal(size=(count, T, 12)) * 0.3
    batch = {"features_BTF": heard.astype(np.float32), "active_BTS": active, "count_B": active.any(1).sum(1)}
    return batch | {"frames_B": np.full(count, T), "real_B": np.ones(count, bool)}


def test_frames_alone_and_their_means():
    active = np.zeros((1, 6, 3), bool)
    active[0, 0:3, 0] = active[0, 2:5, 1] = True
    mask = np.arange(6)[None] < 5
    alone = np.asarray(enrolled_speakers.alone(active, mask))
    assert alone[0].T.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0] * 6]
    frames = np.arange(12.0, dtype=np.float32).reshape(1, 6, 2)
    mean, there = enrolled_speakers.profiles(frames, alone)
    assert mean[0].tolist() == [[1, 2], [7, 8], [0, 0]] and there[0].tolist() == [True, True, False]
    some = np.ones((1, 200, 1), bool)
    kept = np.asarray(enrolled_speakers.drawn(jnp.asarray(some), jax.random.key(0)))[0, :, 0]
    assert 0.3 < kept.mean() < 0.7 and (kept.reshape(-1, enrolled_speakers.BLOCK).std(1) == 0).all()
    few = np.arange(200)[None, :, None] < 3  # one block: it stays, whatever is drawn
    assert all(enrolled_speakers.drawn(few, jax.random.key(n)).sum() == 3 for n in range(6))


@pytest.mark.parametrize("kind", ["aed_ee", "tsvad"])
def test_permuted_enrolments_permute_the_answer_and_who_is_not_there_does_not_count(kind):
    module = TargetSpeakers if kind == "tsvad" else EnrolledDecoder
    more = {} if kind == "tsvad" else {"enhance": True}
    graphdef, params = functional.split(module(D, H, F, **more, init=Init(0)))
    params = functional.materialise(params)
    run = jax.jit(lambda *x: functional.merge(graphdef, params)(*x))
    frames = jax.random.normal(jax.random.key(0), (2, T, D))
    enrol = jax.random.normal(jax.random.key(1), (2, S, D))
    mask, has = jnp.ones((2, T), bool), jnp.array([[True, True, True], [True, False, True]])
    found = np.asarray(run(frames, mask, enrol, has))
    own = found[..., -S:]
    assert found.shape == (2, T, S if kind == "tsvad" else 2 + S)
    order = jnp.array([2, 0, 1])
    again = np.asarray(run(frames, mask, enrol[:, order], has[:, order]))[..., -S:]
    np.testing.assert_allclose(again, own[..., order], atol=1e-5)
    assert np.abs(own[0] - own[0][..., order]).max() > 1e-2
    other = np.asarray(run(frames, mask, enrol.at[1, 1].set(9.0), has))[..., -S:]
    np.testing.assert_allclose(other[1][:, [0, 2]], own[1][:, [0, 2]], atol=1e-5)
    other = np.asarray(run(frames, mask, enrol.at[0, 1].set(9.0), has))[..., -S:]
    assert np.abs(other[0][:, [0, 2]] - own[0][:, [0, 2]]).max() > 1e-3  # who is there does


def test_nobody_is_there():
    """Talks of silence: attention to no speaker is no division by zero."""
    sizes = dataclasses.replace(SIZES, head="tsvad")
    graphdef, params = task.init(sizes, 0)
    batch = talks(0, 2)
    batch["active_BTS"] = np.zeros_like(batch["active_BTS"])
    loss, metrics = jax.jit(task.make_loss(graphdef))(params, batch | {"count_B": np.zeros(2, int)}, jax.random.key(0))
    assert np.isfinite(loss) and float(metrics["enrolled"]) == 0


def layer_size():
    attention = 4 * D * D + D
    return 2 * attention + 2 * D * F + F + D + 3 * 2 * D


@pytest.mark.parametrize("name", HEADS)
def test_parameter_counts(name):
    plain, own = (
        functional.count(functional.abstract(lambda s=s: task.Diarizer(s, init=Init(0)))[1]["backbone"])
        for s in (
            dataclasses.replace(SIZES, head="attractors" if name == "tsvad" else "fixed"),
            dataclasses.replace(SIZES, **HEADS[name]),
        )
    )
    if name == "tsvad":
        one = layer_size() - (4 * D * D + D) - 2 * D
        assert own - plain == 2 * D * D + D + 2 * one + 2 * D + D + 1
    else:
        assert own - plain == 2 * D + D * D + D + layer_size() * (3 if name == "aed_ee" else 1) + 2 * D - (D * S + S)


@pytest.mark.parametrize("name", ["aed_ee", "tsvad"])
def test_it_learns_and_finds_speakers_of_whom_nobody_told_it(name):
    graphdef, params = task.init(dataclasses.replace(SIZES, **HEADS[name]), 0)
    loss_fn, optimizer = task.make_loss(graphdef), optax.adam(3e-3)
    state = optimizer.init(params["backbone"])

    @jax.jit
    def step(params, state, batch, key):
        def of(backbone):
            return loss_fn({**params, "backbone": backbone}, batch, key)[0]

        loss, grads = jax.value_and_grad(of)(params["backbone"])
        updates, state = optimizer.update(grads, state)
        return {**params, "backbone": optax.apply_updates(params["backbone"], updates)}, state, loss

    each, losses, test = task.make_each(graphdef), [], talks(10_000, 32)
    before = float(each(params, test)[0].sum())
    for number in range(200):
        params, state, loss = step(params, state, talks(number), jax.random.key(number))
        losses.append(float(loss))
    after = float(each(params, test)[0].sum())
    print(name, np.mean(losses[:10]), np.mean(losses[-10:]), before, after)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    prob, exists, _ = map(np.asarray, task.make_hear(graphdef)(params, test))
    counted = np.array([len(np.flatnonzero(np.cumprod(row > 0.5))) for row in exists])
    wrong = []
    for b, truth in enumerate(test["active_BTS"]):
        orders = [prob[b][:, list(order)] > 0.5 for order in itertools.permutations(range(S))]
        wrong.append(min((one != truth).mean() for one in orders))
    print(name, np.mean(wrong), test["active_BTS"].mean(), np.mean(counted == test["count_B"]))
    assert np.mean(wrong) < 0.5 * test["active_BTS"].mean()  # who says nothing is wrong where anybody speaks
