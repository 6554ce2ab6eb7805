import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional
from moejax.ops import routing
from moejax.tasks import asr, recognition

SMALL = dataclasses.replace(tiny.MIXTURE, targets=("encoder/layers/*/fc1", "decoder/layers/*/self_attn/v"))
KEY = jax.random.key(0)


def loss_of(row, mixture=SMALL, **options):
    graphdef, params = tiny.model(mixture)
    return tiny.loss_of(graphdef, row, mixture, **options)[1], params


def test_base_arrays_are_kept_and_the_rest_is_fresh():
    base = functional.materialise(functional.split(asr.build(tiny.CONFIG, seed=9)())[1])
    params = asr.init(asr.build(tiny.CONFIG, mixture=SMALL, gate=tiny.GATE), base)[1]
    assert not any(tiny.changed(params["backbone"], base["backbone"]).values())
    assert set(params) == {"backbone", "expert", "gate", "buffer"}
    base["backbone"]["encoder"]["conv1"]["bias"] = np.zeros(5)
    with pytest.raises(ValueError, match=r"backbone/encoder/conv1/bias has shape \(5,\), the model wants \(32,\)"):
        asr.init(asr.build(tiny.CONFIG), base)


def test_constant_gate_and_dense_routing_train_as_one_lora_of_the_same_size():
    dense = dataclasses.replace(SMALL, routing="dense")
    graphdef, params = tiny.model(dense)
    params = {**params, "gate": jax.tree.map(jnp.zeros_like, params["gate"])}
    one = dataclasses.replace(SMALL, num_experts=1, rank=4 * 2, alpha=4.0 * 4)  # the same alpha / rank
    graphdef_one, params_one = tiny.model(one)
    side_by_side = {
        path: x.transpose(1, 0, 2).reshape(1, x.shape[1], -1) if path[-1] == "A" else x.reshape(1, -1, x.shape[-1])
        for path, x in functional.paths(params["expert"]).items()
    }
    params_one = {**params_one, "expert": functional.nest(side_by_side)}
    data = tiny.replace(tiny.batch(), label_B=np.zeros(8, np.int32))
    many, _ = tiny.loss_of(graphdef, tiny.GATE_ROW, dense)[1](params, data, KEY)
    single, _ = tiny.loss_of(graphdef_one, asr.Row(route="label"), one)[1](params_one, data, KEY)
    base, _ = tiny.loss_of(graphdef, asr.Row(), None)[1](params, data, KEY)
    np.testing.assert_allclose(many, single, rtol=1e-5)
    assert abs(float(many) - float(base)) > 1e-3


def test_known_label_loss_is_that_of_the_label_alone_and_minus_one_the_base():
    run, params = loss_of(asr.Row(route="label"))
    base, _ = loss_of(asr.Row())
    data = tiny.batch()
    without = tiny.replace(data, label_B=np.full(8, -1, np.int32))
    np.testing.assert_allclose(run(params, without, KEY)[0], base(params, data, KEY)[0], rtol=1e-6)
    assert abs(float(run(params, data, KEY)[0]) - float(base(params, data, KEY)[0])) > 1e-3


def test_terms_of_the_loss_add_up_and_the_load_counts_real_utterances_by_cohort():
    row = asr.Row(route="gate", balance=0.3, z=0.02)
    run, params = loss_of(row, prior=(0.4, 0.3, 0.2, 0.1))
    data = tiny.collator()(tiny.BUCKET, np.array([0, 1, 2, 3, 4, 5, -1, -1]))
    loss, metrics = run(params, data, KEY)
    np.testing.assert_allclose(loss, metrics["ce"] + metrics["balance"] + metrics["z"], rtol=1e-6)
    logits_BE = asr.make_gate(tiny.model(SMALL)[0])(params, data.gate_in_BU)
    share_BE = np.asarray(routing.dense_weights(SMALL.route(logits_BE), 4))[:6]
    cohort_BC = np.eye(3)[data.cohort_B[:6]]
    np.testing.assert_allclose(metrics["load_EC"], share_BE.T @ cohort_BC, rtol=1e-5)
    want = 0.3 * (share_BE.mean(0) * np.asarray(jax.nn.softmax(logits_BE))[:6].mean(0) / [0.4, 0.3, 0.2, 0.1]).sum()
    np.testing.assert_allclose(metrics["balance"], want, rtol=1e-5)


def test_temperature_softens_the_first_steps_of_training_and_nothing_after():
    run, params = loss_of(asr.Row(route="gate", temperature=1e3, temperature_steps=10))
    _, plain = loss_of(asr.Row(route="gate"))[0](params, tiny.batch(), KEY)
    early, late, without = (run(params, tiny.batch(), KEY, step)[1] for step in (0, 10, None))
    assert float(early["utterance_entropy"]) > float(plain["utterance_entropy"]) + 1e-3
    np.testing.assert_allclose(late["ce"], plain["ce"], rtol=1e-6)
    np.testing.assert_allclose(without["ce"], plain["ce"], rtol=1e-6)


def test_given_logits_give_everybody_the_same_route_without_another_compilation():
    dense = dataclasses.replace(SMALL, routing="dense")
    width = tiny.CONFIG.d_model
    gate = {**tiny.GATE, "mean": np.zeros(width, np.float32), "matrix": np.eye(width, dtype=np.float32)}
    graphdef, params = asr.init(asr.build(tiny.CONFIG, mixture=dense, gate=gate))
    predict = recognition.make_predict(
        graphdef, prefix=tiny.PREFIX, eot=tiny.EOT, max_tokens=2, route="gate", mixture=dense, embedding=asr.Embedding()
    )
    data, share_E = tiny.batch(), np.array([0.5, 0.25, 0.2, 0.05], np.float32)
    inputs = (params, data.audio_BS, data.samples_B, data.label_B)
    weights = [np.asarray(predict(*inputs, given=given, logits_E=np.log(share_E))[1]) for given in (False, True)]
    np.testing.assert_allclose(weights[1], np.tile(4 * share_E, (8, 1)), rtol=1e-5)
    assert np.abs(weights[0] - weights[1]).max() > 1e-3
    assert predict._cache_size() == 1


def test_load_metrics_see_a_choice_that_even_weights_hide():
    share_BE = jnp.asarray([[0.4, 0.3, 0.3]] * 3 + [[0.1, 0.1, 0.8]])
    found = asr.load_metrics(share_BE, jnp.ones((4, 1)), jnp.asarray([True, True, True, False]))
    assert found["top1_E"].tolist() == [3, 0, 0] and found["max_top1"] == 1
    np.testing.assert_allclose(found["max_load"], 0.4, rtol=1e-6)
    np.testing.assert_allclose(found["entropy"], found["utterance_entropy"], rtol=1e-4)


def test_softened_gate_keeps_the_choice_and_divides_the_logits():
    graphdef, params = tiny.model(SMALL)
    gate = asr.make_gate(graphdef)
    embedding_BU = tiny.batch().gate_in_BU
    params = tiny.with_gate_bias(params, [0.5, 0.0, -0.5, 0.0])
    np.testing.assert_allclose(
        gate(asr.soften(params, 2.0), embedding_BU), gate(params, embedding_BU) / 2, rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="positive, got 0"):
        asr.soften(params, 0)


def test_noise_is_a_function_of_the_key_and_leaves_the_mask_consistent():
    quiet = {"spec": True, "warp_time": 0.2, "warp_freq": 0.1, "level": 0.1, "dropout": 0.1, "smoothing": 0.1}
    run, params = loss_of(asr.Row(route="label", **quiet), mixture=dataclasses.replace(SMALL, expert_dropout=0.2))
    data = tiny.batch()
    one, again, other = (float(run(params, data, jax.random.key(k))[0]) for k in (0, 0, 1))
    assert one == again != other and np.isfinite([one, other]).all()


def test_ctc_labels_are_the_text_without_prefix_and_end():
    graphdef, params = asr.init(asr.build(tiny.CONFIG, ctc=True))
    data = tiny.batch(words=[[1, 2], [3], [4, 5, 6], [7], [8], [9], [10], [11]] * 2)
    plain = asr.make_loss(graphdef, asr.Row(ctc=0.5))
    loss, metrics = jax.jit(plain)(params, data, KEY)
    np.testing.assert_allclose(loss, metrics["ce"] + metrics["ctc"], rtol=1e-6)
    blanker = {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}
    bias = np.full(tiny.VOCAB + 1, -30.0, np.float32)
    bias[[*range(1, 12), tiny.VOCAB]] = 0.0  # only words and the blank are possible
    blanker["head"]["ctc"]["bias"] = jnp.asarray(bias)
    assert 0 < jax.jit(plain)(blanker, data, KEY)[1]["ctc"] < 20  # a prefix or end label would cost 30 each


def test_unknown_routes_list_the_known():
    graphdef, _ = tiny.model(SMALL)
    with pytest.raises(ValueError, match="'gates'; known: none, label, gate, uniform"):
        asr.make_loss(graphdef, asr.Row(route="gates"))
    with pytest.raises(ValueError, match="'random'; known: none, label, gate"):
        recognition.make_predict(graphdef, prefix=[1], eot=2, max_tokens=3, route="random")


def test_gate_loss_drops_rows_of_weight_zero():
    graphdef, params = tiny.model(SMALL)
    loss_fn = asr.make_gate_loss(graphdef, 4)
    data = {"embedding_BU": tiny.batch().gate_in_BU, "target_BE": np.eye(4)[[0, 1, 2, 3] * 2]}
    weight_B = np.array([1, 2, 1, 0, 0, 0, 0, 0], np.float32)
    junk = {**data, "target_BE": np.where(weight_B[:, None] > 0, data["target_BE"], 9.0)}
    one, other = (loss_fn(params, {**d, "weight_B": weight_B}, KEY)[0] for d in (data, junk))
    assert float(one) == float(other) > 0


def test_gradients_of_an_utterance_are_its_own_and_have_unit_length():
    """Batching changes nothing, an utterance in another row has the same gradient, another text has another."""
    one = dataclasses.replace(SMALL, num_experts=1, routing="dense", shared_rank=0)
    graphdef, params = tiny.model(one)
    data = tiny.replace(tiny.batch(), label_B=np.zeros(8, np.int32))
    run = asr.make_gradients(graphdef, one, dims=16, together=4)
    found = run(params, data, KEY)
    assert set(found) == {"encoder", "decoder"} and found["encoder"].shape == (8, 16)
    for block in found.values():
        np.testing.assert_allclose(np.linalg.norm(block, axis=1), 1.0, rtol=1e-4)
    order = np.array([3, 1, 2, 0, 7, 5, 6, 4])
    moved = run(params, jax.tree.map(lambda leaf: leaf[order], data), KEY)
    np.testing.assert_allclose(moved["encoder"], found["encoder"][order], atol=1e-4)
    assert np.abs(found["encoder"][0] - found["encoder"][1]).max() > 1e-2


def test_even_route_of_dense_blocks_is_where_a_zero_gate_starts():
    dense = dataclasses.replace(SMALL, routing="dense")
    graphdef, params = tiny.model(dense)
    params = {**params, "gate": jax.tree.map(jnp.zeros_like, params["gate"])}
    data = tiny.batch()
    even, _ = tiny.loss_of(graphdef, asr.Row(route="uniform"), dense)[1](params, data, KEY)
    start, _ = tiny.loss_of(graphdef, tiny.GATE_ROW, dense)[1](params, data, KEY)
    assert float(even) == float(start)  # so a joint stage that follows it changes nothing at its step 0


def test_gate_dropout_gives_the_even_route_to_its_share_and_to_nobody_at_0():
    dense = dataclasses.replace(SMALL, routing="dense")
    graphdef, params = tiny.model(dense)
    params, data = tiny.with_gate_bias(params, [2.0, 0.0, -2.0, 0.0]), tiny.batch()

    def loss(**options):
        return float(tiny.loss_of(graphdef, asr.Row(**options), dense)[1](params, data, KEY)[0])

    assert loss(route="gate", gate_dropout=1.0) == loss(route="uniform")
    assert loss(route="gate", gate_dropout=0.0) == loss(route="gate") != loss(route="uniform")
    assert loss(route="gate", gate_dropout=0.5) not in (loss(route="gate"), loss(route="uniform"))


def test_mixing_with_the_speakers_mean_needs_both_and_moves_the_route_between_them():
    dense = dataclasses.replace(SMALL, routing="dense")
    graphdef, params = tiny.model(dense)
    data = tiny.batch()
    own_BU = np.asarray(data.gate_in_BU)
    same = tiny.replace(data, gate_in_BU=np.concatenate([own_BU, own_BU], 1))
    other = tiny.replace(data, gate_in_BU=np.concatenate([own_BU, own_BU[::-1] + 3], 1))
    mixed = tiny.loss_of(graphdef, asr.Row(route="gate", voice_mix=True), dense)[1]
    alone = tiny.loss_of(graphdef, asr.Row(route="gate"), dense)[1]
    np.testing.assert_allclose(mixed(params, same, KEY)[0], alone(params, data, KEY)[0], rtol=1e-5)
    assert abs(float(mixed(params, other, KEY)[0]) - float(alone(params, data, KEY)[0])) > 1e-5
