import contextlib
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from moejax.runtime import sharding
from moejax.train import checkpoint, optim, params_file, state


def fresh(mesh, seed=0):
    optimizer, _ = optim.make_optimizer(learning_rate=1e-2, steps=20)
    now, frozen = state.init_state(toy.params(seed), toy.TRAINABLE, optimizer, jax.random.key(seed))
    now, frozen, *shardings = state.place(now, frozen, optimizer, mesh)
    return now, frozen, state.make_step(toy.loss, optimizer, mesh, *shardings)


def single():
    return sharding.make_mesh({}, jax.devices()[:1])


def flat(tree):
    return {path: np.array(leaf) for path, leaf in params_file.flat_state(tree).items()}


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def open_at(folder, **options):
    return contextlib.closing(checkpoint.Checkpointer(folder, **options))


def save_steps(folder, steps, keep=2):
    """{step: what was saved}, from a state that is donated to the next step while it is written."""
    now, frozen, step = fresh(single())
    saved = {}
    with open_at(folder, keep=keep) as io:
        for n in range(1, max(steps) + 1):
            now, _ = step(now, frozen, toy.batch(n))
            if n in steps:
                saved[n] = flat(now)
                io.save(n, now, {"batch": n}, {"note": f"of {n}"})
    return saved


def test_restored_equals_saved_though_the_state_was_donated_meanwhile(tmp_path):
    saved = save_steps(tmp_path, range(1, 9), keep=8)
    for n in range(8, 0, -1):
        with open_at(tmp_path, keep=8) as io:
            found, data, meta = io.restore_latest(fresh(single(), seed=1)[0])
        assert equal(flat(found), saved[n]) and int(found.step) == n
        assert (data, meta) == ({"batch": n}, {"note": f"of {n}"})
        assert jax.dtypes.issubdtype(found.key.dtype, jax.dtypes.prng_key)
        shutil.rmtree(tmp_path / str(n))


def test_restores_onto_another_mesh(tmp_path):
    saved = save_steps(tmp_path, [2])
    template = fresh(sharding.make_mesh({"data": 2, "expert": 4}))[0]
    with open_at(tmp_path) as io:
        found, _, _ = io.restore_latest(template)
    assert equal(flat(found), saved[2])
    assert found.params["expert"]["q"]["A"].sharding == template.params["expert"]["q"]["A"].sharding


def test_nothing_to_restore(tmp_path):
    with open_at(tmp_path / "new") as io:
        assert io.restore_latest(fresh(single())[0]) is None


def test_only_the_newest_are_kept(tmp_path):
    save_steps(tmp_path, [1, 2, 3, 4], keep=2)
    with open_at(tmp_path) as io:
        assert io.steps() == [3, 4]


def empty_folder(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def no_metadata(folder):
    (folder / "state" / "_METADATA").unlink()


def no_data(folder):
    shutil.rmtree(folder / "data")


def one_array_file_gone(folder):
    next(folder.glob("state/ocdbt.process_0/d/*")).unlink()


def cut_arrays(folder):
    for file in folder.glob("state/**/d/*"):
        file.write_bytes(file.read_bytes()[:10])


def garbled_metadata(folder):
    (folder / "state" / "_METADATA").write_text("{")


DAMAGES = [empty_folder, no_metadata, no_data, one_array_file_gone, cut_arrays, garbled_metadata]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_newest_step_is_passed_over_and_can_be_saved_again(tmp_path, caplog, damage):
    saved = save_steps(tmp_path, [2, 3])
    damage(tmp_path / "3")
    now, _, _ = fresh(single(), seed=1)
    with caplog.at_level(logging.WARNING, "moejax"), open_at(tmp_path) as io:
        found, data, _ = io.restore_latest(now)
        assert equal(flat(found), saved[2]) and data == {"batch": 2}
        assert any("checkpoint 3" in r.message and "passed over" in r.message for r in caplog.records)
        io.save(3, now, {}, {})
        io.wait()
        assert io.steps() == [2, 3]


def test_flipped_bit_in_any_file_is_noticed(tmp_path, caplog):
    saved = save_steps(tmp_path / "whole", [2, 3])
    files = sorted(
        path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole" / "3").rglob("*") if path.is_file()
    )
    assert len(files) > 8
    for number, name in enumerate(files):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1 << number % 8
        (folder / name).write_bytes(data)
        with open_at(folder) as io:
            found, _, _ = io.restore_latest(fresh(single())[0])
        assert equal(flat(found), saved[2]) and (folder / "damaged" / "3").is_dir()
    assert all("checkpoint 3" in r.message for r in caplog.records if r.levelno == logging.WARNING)


def test_step_with_the_best_score_is_kept_beside_the_newest(tmp_path):
    now, frozen, step = fresh(single())
    with open_at(tmp_path) as io:
        for n, score in enumerate([0.9, 0.4, 0.6, None, 0.5, 0.7], 1):
            now, _ = step(now, frozen, toy.batch(n))
            io.save(n, now, {}, {}, score)
        io.wait()
        assert io.steps() == [2, 5, 6] and io.best() == {"step": 2, "score": 0.4}
    for n in (2, 5, 6):
        checkpoint.verify(tmp_path / str(n))


def test_leftover_of_a_killed_save_is_no_step(tmp_path):
    saved = save_steps(tmp_path, [2])
    for name in (".3.saving.orbax-checkpoint-tmp", ".3.saving", ".1.old"):
        shutil.copytree(tmp_path / "2", tmp_path / name)
    (tmp_path / ".best.json.partial").write_text("{")
    with open_at(tmp_path) as io:
        found, _, _ = io.restore_latest(fresh(single())[0])
    assert equal(flat(found), saved[2]) and sorted(p.name for p in tmp_path.iterdir()) == ["2"]


def test_whole_step_of_another_model_is_an_error_not_a_fresh_start(tmp_path):
    save_steps(tmp_path, [2])
    now = fresh(single())[0]
    now.params["gate"]["out"]["bias"] = jnp.zeros(toy.E + 1)
    with open_at(tmp_path) as io, pytest.raises(ValueError, match="another model: params/gate/out/bias"):
        io.restore_latest(now)
    assert (tmp_path / "2").is_dir()


def test_error_of_an_earlier_save_is_raised_at_the_next_call(tmp_path):
    now = fresh(single())[0]
    io = checkpoint.Checkpointer(tmp_path)
    io._io._post_finalization_callback = lambda: 1 / 0  # on the thread that writes, as a full disk would be met
    io.save(1, now, {}, {})
    with pytest.raises(ZeroDivisionError):
        io.save(2, now, {}, {})
    assert io.steps() == []
    io._io.close()


def test_saving_a_step_twice_is_an_error(tmp_path):
    now = fresh(single())[0]
    with open_at(tmp_path) as io:
        io.save(1, now, {}, {})
        with pytest.raises(ValueError, match="checkpoint 1 already"):
            io.save(1, now, {}, {})


def test_params_file_gives_back_tree_bits_and_types(tmp_path):
    mesh = sharding.make_mesh({"data": 8})
    cut = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, P("data")))
    params = {"expert": {"0": {"A": cut}, "1": {"A": jnp.ones((2, 2), jnp.bfloat16).T}}, "gate": {"n": np.int32(3)}}
    params_file.save_params(tmp_path / "a" / "params.safetensors", params, {"k": [1]})
    back, meta = params_file.load_params(tmp_path / "a" / "params.safetensors")
    assert jax.tree.structure(back) == jax.tree.structure(params) and meta == {"k": [1]}
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b) and a.dtype == b.dtype, back, params))


def test_params_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "params.safetensors"
    params_file.save_params(path, {"a": np.ones(2)})

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        params_file.save_params(path, {"a": np.zeros(2)})
    assert params_file.load_params(path)[0]["a"][0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["params.safetensors"]


def test_params_file_missing_or_cut_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.safetensors"):
        params_file.load_params(tmp_path / "no.safetensors")
    path = tmp_path / "cut.safetensors"
    params_file.save_params(path, {"a": np.ones(200)})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cut\.safetensors"):
        params_file.load_params(path)
