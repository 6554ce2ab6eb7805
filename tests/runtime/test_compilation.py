"""Compiled programs outlive their process, where the user wants them to."""

import logging
import os
import subprocess
import sys

import jax
import pytest

from moejax.runtime import compilation


@pytest.fixture
def unset(monkeypatch):
    """JAX as a user's process has it: without a cache. Yields what is set."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    kept = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv(compilation.VARIABLE, raising=False)
    yield lambda: jax.config.values["jax_compilation_cache_dir"]
    for name, value in kept.items():
        jax.config.update(name, value)


def test_the_folder_is_the_given_one_or_the_variable_or_the_home(unset, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    compilation.keep_programs()
    assert unset() == str(tmp_path / ".cache" / "moejax" / "xla") and (tmp_path / ".cache" / "moejax" / "xla").is_dir()
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setenv(compilation.VARIABLE, str(tmp_path / "other"))
    compilation.keep_programs()
    assert unset() == str(tmp_path / "other")
    compilation.keep_programs(str(tmp_path / "third"))  # somebody configured it already
    assert unset() == str(tmp_path / "other")
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.keep_programs(str(tmp_path / "third"))
    assert unset() == str(tmp_path / "third")


@pytest.mark.parametrize("variable", [False, True])
def test_an_empty_name_turns_it_off(unset, variable, monkeypatch):
    if variable:
        monkeypatch.setenv(compilation.VARIABLE, "")
    compilation.keep_programs(None if variable else "")
    assert unset() is None


def test_a_folder_that_cannot_be_made_is_a_warning(unset, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        compilation.keep_programs(str(tmp_path / "file" / "below"))
    assert unset() is None and "compiled programs are not kept" in caplog.text


def test_a_second_process_compiles_nothing(tmp_path):
    code = (
        "from moejax.runtime import compilation; compilation.keep_programs();"
        "import jax, jax.monitoring as m; hits = [];"
        "m.register_event_listener(lambda name, **more: hits.append(name));"
        "jax.jit(lambda x: x * 2 + 1)(3.0);"
        "print(sum(name.endswith('cache_hits') for name in hits), sum(name.endswith('cache_misses') for name in hits))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, compilation.VARIABLE: str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert said[0][0] == "0" and int(said[0][1]) > 0 and int(said[1][0]) == int(said[0][1]) and said[1][1] == "0"
