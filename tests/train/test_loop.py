import contextlib
import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import toy

from moejax.errors import EXIT_PREEMPTED
from moejax.runtime import sharding
from moejax.train import checkpoint, loop, metrics, optim, params_file, state

HERE = Path(__file__).parent
STEPS = 8


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """launch(folder, kill_at="") -> exit code of a run in a process of its own (see toy_run.py)."""
    errors = tmp_path_factory.mktemp("runs") / "stderr"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)]), "XLA_FLAGS": ""}
    # the first run compiles, the others read
    env |= {
        "JAX_COMPILATION_CACHE_DIR": str(errors.parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with errors.open("w") as stderr:
        command = [sys.executable, str(HERE / "toy_run.py")]
        server = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )

        def launch(folder, kill_at=""):
            server.stdin.write(json.dumps([str(folder), STEPS, kill_at]) + "\n")
            server.stdin.flush()
            code = int(server.stdout.readline() or 1)
            assert code in (0, -signal.SIGKILL, EXIT_PREEMPTED), errors.read_text()
            return code

        yield launch
        server.stdin.close()
        server.wait(timeout=30)
        server.stdout.close()


def outcome(folder):
    records = metrics.read(folder / "metrics.jsonl")
    for record in records:
        record.pop("seconds")
    return params_file.load_params(folder / "last.safetensors")[0], json.dumps(records)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, launch):
    folder = tmp_path_factory.mktemp("whole")
    assert launch(folder) == 0
    return outcome(folder)


# before the first save; while one is written, with the older one in place; between saves; while the last one is written
@pytest.mark.parametrize("kills", [["2", "save:6", "7"], ["save:3", "save:8"]], ids=",".join)
def test_killed_and_restarted_equals_uninterrupted_bit_for_bit(tmp_path, launch, uninterrupted, kills):
    for kill_at in kills:
        assert launch(tmp_path, kill_at) == -signal.SIGKILL
    assert launch(tmp_path) == 0
    (arrays, records), (want_arrays, want_records) = outcome(tmp_path), uninterrupted
    assert records == want_records
    assert [record["step"] for record in json.loads(records)] == list(range(1, STEPS + 1))
    assert arrays.keys() == want_arrays.keys() and "step" in arrays and "key" in arrays
    assert any("opt_state" in name for name in arrays)
    assert all(np.array_equal(arrays[name], want_arrays[name]) for name in arrays)


def test_sigterm_saves_and_leaves_with_75(tmp_path, launch, uninterrupted):
    assert launch(tmp_path, "term:4") == 75
    assert (tmp_path / "checkpoints" / "5").is_dir()  # the step whose batch was being fetched is finished first
    assert launch(tmp_path) == 0
    assert outcome(tmp_path)[1] == uninterrupted[1]


def parts(steps=6, loss=toy.loss):
    mesh = sharding.make_mesh({}, jax.devices()[:1])
    optimizer, _ = optim.make_optimizer(learning_rate=1e-2, steps=steps)
    fresh, frozen = state.init_state(toy.params(), toy.TRAINABLE, optimizer, jax.random.key(0))
    fresh, frozen, *shardings = state.place(fresh, frozen, optimizer, mesh)
    return {"state": fresh, "frozen": frozen, "step_fn": state.make_step(loss, optimizer, mesh, *shardings)}


def run(folder, steps=6, **options):
    def taken(kind, **given):
        names = [field.name for field in dataclasses.fields(kind)]
        return kind(**{**given, **{name: options.pop(name) for name in names if name in options}})

    batches = taken(loop.Batches, source=toy.Batches())
    cadence = taken(loop.Cadence, steps=steps, checkpoint_every=100, log_every=1)
    home = taken(loop.Home, folder=folder, name="toy", progress=False)
    return loop.fit(**{**parts(), **options}, batches=batches, cadence=cadence, home=home)


def test_finished_run_returns_at_once_with_the_same_state(tmp_path):
    first = run(tmp_path)

    def never(*args):
        raise AssertionError("a finished run must not train")

    second = run(tmp_path, step_fn=never)
    same = jax.tree.map(np.array_equal, first.params, second.params)
    assert jax.tree.all(same) and int(second.step) == 6


def test_run_that_is_past_the_steps_asked_for_is_an_error(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="step 6, past the 4"):
        run(tmp_path, steps=4)


def test_metrics_are_fetched_only_after_the_next_step_was_dispatched(tmp_path):
    events, options = [], parts()
    step_fn = options["step_fn"]

    def noted(*args):
        events.append("dispatch")
        return step_fn(*args)

    options["step_fn"] = noted
    run(tmp_path, steps=3, on_metrics=lambda step, values: events.append(step), **options)
    assert events == ["dispatch", "dispatch", 1, "dispatch", 2, 3]


def test_evaluation_goes_into_the_record_of_its_step(tmp_path):
    run(tmp_path, eval_fn=lambda now, frozen: {"wer": float(now.step)}, eval_every=4, log_every=3)
    records = metrics.read(tmp_path / "metrics.jsonl")
    assert [(r["step"], r.get("eval/wer")) for r in records] == [(3, None), (4, 4.0), (6, 6.0)]
    assert np.array(records[0]["load_E"]).shape == (toy.E,)


def test_the_best_step_is_given_back_as_it_was_and_none_where_it_is_the_last(tmp_path):
    seen, home = {}, loop.Home(tmp_path, progress=False)

    def score(now, frozen):
        seen[int(now.step)] = {path: np.array(leaf) for path, leaf in params_file.flat_state(now.params).items()}
        return {"wer": abs(int(now.step) - 4.0)}

    last = run(tmp_path, steps=16, eval_fn=score, eval_every=2, checkpoint_every=100)
    best = loop.best(last, home)
    assert int(best.step) == 4 and len(seen) == 8
    for path, leaf in params_file.flat_state(best.params).items():
        np.testing.assert_array_equal(leaf, seen[4][path])
    assert any((leaf != seen[16][path]).any() for path, leaf in params_file.flat_state(best.params).items())
    (tmp_path / "checkpoints" / checkpoint.BEST).write_text('{"step": 16, "score": 0.0}')
    assert loop.best(last, home) is None


def test_alarms_and_skipped_steps_are_said_in_the_log(tmp_path, caplog):
    class Poisoned(toy.Batches):
        def __next__(self):
            batch = super().__next__()
            if self.number == 3:
                batch["poison_B"][0] = np.nan
            return batch

    with caplog.at_level(logging.WARNING, "moejax"):
        run(tmp_path, source=Poisoned(), on_metrics=lambda step, values: ["expert 2 is dying"] if step == 5 else None)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and "step 3" in said[0] and "not finite" in said[0]
    assert "step 5: expert 2 is dying" in said[1]


class Bad(toy.Batches):
    """Every second batch poisons the gradient."""

    def __next__(self):
        batch = super().__next__()
        if self.number % 2 == 0:
            batch["poison_B"][0] = np.nan
        return batch


def test_run_of_broken_batches_ends_and_names_utterances_and_the_last_good_step(tmp_path):
    options = {"source": Bad(), "names": lambda n: [f"utt{n}"], "max_skipped": 3, "log_every": 100}
    with pytest.raises(loop.NotFinite, match="3 updates.*at step 6; utterances utt5; the last good step is 5.*step 4"):
        run(tmp_path, steps=20, checkpoint_every=4, **options)
    with contextlib.closing(checkpoint.Checkpointer(tmp_path / "checkpoints")) as io:
        found, _, _ = io.restore_latest(parts()["state"])
    assert int(found.step) == 4 and int(found.skipped) == 2
    assert all(np.isfinite(leaf).all() for leaf in params_file.flat_state(found).values())


def test_broken_parameters_are_no_start(tmp_path):
    options = parts()
    options["state"].params["gate"]["out"]["bias"] = options["state"].params["gate"]["out"]["bias"].at[0].set(np.inf)
    with pytest.raises(ValueError, match="params/gate/out/bias holds a number that is not finite"):
        run(tmp_path, **options)


def test_checkpoint_of_another_base_is_refused_and_named(tmp_path, caplog):
    run(tmp_path, steps=4, identity={"base": "aa", "data": "dd"})
    with pytest.raises(ValueError, match="step 4 is of another run: base was aa, is bb; --force"):
        run(tmp_path, steps=6, identity={"base": "bb", "data": "dd"})
    with caplog.at_level(logging.WARNING, "moejax"):
        assert int(run(tmp_path, steps=6, identity={"base": "bb", "data": "dd"}, force=True).step) == 6
    assert "base was aa" in caplog.text


def test_signal_handlers_are_restored_and_progress_is_printed(tmp_path, capfd):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run(tmp_path, progress=True)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert "toy: step 6/6  loss" in capfd.readouterr().err


def test_batches_are_placed_and_an_error_in_the_loop_leaves_no_half_checkpoint(tmp_path):
    placed = []

    def place(batch):
        placed.append(batch)
        if len(placed) == 4:
            raise RuntimeError("device lost")
        return batch

    with pytest.raises(RuntimeError, match="device lost"):
        run(tmp_path, place=place, checkpoint_every=2)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["2"]
    assert [record["step"] for record in metrics.read(tmp_path / "metrics.jsonl")] == [1, 2]
