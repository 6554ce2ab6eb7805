import logging

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from moejax.runtime import sharding


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, np.float32)


def specs(params, mesh):
    tree = sharding.param_sharding(params, mesh)
    return {sharding.path_string(path): leaf.spec for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_free_axis_takes_what_is_left():
    assert sharding.make_mesh({"data": -1, "expert": 4}).shape == {"data": 2, "fsdp": 1, "expert": 4, "model": 1}


@pytest.mark.parametrize(
    ("wanted", "word"),
    [({"data": 3}, "8"), ({"data": -1, "fsdp": -1}, "at most one"), ({"experts": 2}, "known"), ({"expert": 16}, "8")],
)
def test_mesh_that_does_not_fit_says_why_in_one_line(wanted, word):
    with pytest.raises(ValueError, match=word) as error:
        sharding.make_mesh(wanted)
    assert "\n" not in str(error.value)


def test_rules():
    params = {
        "backbone": {
            "conv": {"kernel": shape(3, 8, 16), "bias": shape(16)},
            "0": {"q": {"kernel": shape(8, 8)}, "out": {"kernel": shape(8, 8)}, "fc1": {"kernel": shape(8, 32)}},
            "stacked": {"fc2": {"kernel": shape(5, 32, 8)}},
        },
        "expert": {"q": {"A": shape(4, 8, 2), "B": shape(4, 2, 8), "shared_A": shape(1, 8, 2)}},
        "gate": {"kernel": shape(8, 4)},
    }
    got = specs(params, sharding.make_mesh({"fsdp": 2, "expert": 2, "model": 2}))
    assert got == {
        "backbone/conv/kernel": P(None, None, "fsdp"),
        "backbone/conv/bias": P(),
        "backbone/0/q/kernel": P("fsdp", "model"),
        "backbone/0/out/kernel": P("model", "fsdp"),
        "backbone/0/fc1/kernel": P("fsdp", "model"),
        "backbone/stacked/fc2/kernel": P(None, "model", "fsdp"),
        "expert/q/A": P("expert"),
        "expert/q/B": P("expert"),
        "expert/q/shared_A": P(),
        "gate/kernel": P(),
    }


def test_rule_that_cannot_apply_replicates_and_says_so_once(caplog):
    mesh = sharding.make_mesh({"data": 2, "expert": 4})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert specs({"expert": {"only_here": {"A": shape(6, 8, 2)}}}, mesh) == {"expert/only_here/A": P()}
    assert [r.message for r in caplog.records if "only_here" in r.message and "expert=4" in r.message] != []
    assert len(caplog.records) == 1


def test_batch_rows_lie_over_data_and_fsdp():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "expert": 2})
    batch = {"audio_BS": np.arange(8 * 3, dtype=np.float32).reshape(8, 3), "real_B": np.ones(8, bool)}
    placed = sharding.shard_batch(batch, mesh)
    assert all(np.array_equal(placed[name], batch[name]) for name in batch)
    assert {shard.data.shape for shard in placed["audio_BS"].addressable_shards} == {(2, 3)}
    assert sharding.process_shard(mesh) == (0, 1)


def test_batch_that_does_not_divide_names_the_leaf():
    with pytest.raises(ValueError, match="audio_BS.*6 rows"):
        sharding.shard_batch({"audio_BS": np.zeros((6, 2))}, sharding.make_mesh({"data": 8}))
