"""A real job through all stages that takes seconds, in processes that can be killed; and what two runs of it share."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import tiny_job

from moejax.runtime.files import TEMPORARY
from moejax.train import checkpoint, metrics, optim

ROOT = Path(__file__).parent.parent.parent
PATHS = (ROOT, ROOT / "tests", ROOT / "tests" / "train", ROOT / "tests" / "faults")
CACHE = ROOT / ".cache" / "jax-tests"
EVERY = 3  # steps from save to save
TRAINED = {"base": 24, "gate": 12, "experts": 12, "joint": 12, "adapters/lora": 12, "translate/model": 6}
TICKS = os.sysconf("SC_CLK_TCK")


def changes() -> dict:
    """What the job sets beside the tiny job: few steps, saved often, every one on record."""
    found = {
        "data__sample_share": 0.6,
        "adapters__kinds": ("lora",),
        "adapters__steps": 12,
        "translate__log_every": 1,
        "evaluate__systems": ("base", "lora", "moe"),
        "report__draws": 10,
        "cluster__method": "gmm",
        "experts__evals": 2,
        "joint__evals": 2,
        "adapters__evals": 2,
    }
    for name, steps in TRAINED.items():
        stage = name.split("/")[0]
        found |= {f"{stage}__steps": steps, f"{stage}__checkpoint_every": EVERY}
    return found


def make(folder: Path, **more) -> Path:
    """A folder with the corpus and the config file job.py; run `all --config job.py --workdir W` from within."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "corpus").exists():
        tiny_job.write_corpus(folder / "corpus", per_speaker=16)
    tiny_job.write_config(folder / "job.py", **changes() | more)
    return folder


class Commands:
    """Runs `moejax` commands in children of one helper process, one at a time, from within `folder`.

    `loads`: "stages", or "train" where only that training is wanted: the helper then starts sooner.
    """

    def __init__(self, folder, cache=CACHE, prefix=(), loads="stages"):
        environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | {
            "PYTHONPATH": os.pathsep.join([*map(str, PATHS), os.environ.get("PYTHONPATH", "")]),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "MPLBACKEND": "agg",
        }
        command = [*prefix, sys.executable, "-W", "ignore", str(Path(__file__).parent / "commands.py"), loads]
        self.folder = Path(folder)
        self.helper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )

    def start(self, *argv, fault="", folder=None, environment=None) -> int:
        """Process id of the command, now running, in `folder` if it is given."""
        task = {"argv": [str(arg) for arg in argv], "fault": fault, "folder": str(folder or self.folder)}
        task["environment"] = environment or {}
        self.helper.stdin.write(json.dumps(task) + "\n")
        self.helper.stdin.flush()
        return int(self.helper.stdout.readline())

    def end(self) -> tuple[int, str]:
        """(exit code, stderr) of the command, once it has ended; its processor time is then `seconds`."""
        code, text, self.seconds = json.loads(self.helper.stdout.readline())
        return code, text

    def run(self, *argv, **options) -> tuple[int, str]:
        self.start(*argv, **options)
        return self.end()

    def close(self):
        self.helper.stdin.close()
        self.helper.wait(timeout=60)
        self.helper.stdout.close()


def used(process: int) -> float | None:
    """Processor seconds that a process has taken; None when it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else (int(fields[11]) + int(fields[12])) / TICKS


def after(process: int, seconds: float) -> bool:
    """Waits until a process has taken so much processor time, which other load does not change; False if it ended."""
    while (taken := used(process)) is not None and taken < seconds:
        time.sleep(0.002)
    return taken is not None


def strike(process: int, number: int) -> None:
    """Sends the signal, if the process is still there to get it."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass


def stage_of(workdir: Path) -> str:
    """The stage that the log of a workdir speaks of last."""
    log = workdir / "log.txt"
    lines = [line for line in log.read_text().splitlines() if " [" in line] if log.exists() else []
    return lines[-1].split("[")[1].split("]")[0] if lines else "start"


def recorded(workdir: Path) -> dict[str, int]:
    """{training: newest step on record} of all trainings that have begun."""
    found = {}
    for name in TRAINED:
        file = workdir / name / metrics.FILE
        found[name] = max((record["step"] for record in metrics.read(file)), default=0) if file.exists() else 0
    return found


def resumed(said: str) -> dict[str, int]:
    """{training: step} from what a run said on stderr."""
    lines = [line for line in said.splitlines() if " resumes from step " in line]
    return {line.split(" resumes")[0].split(":")[-1]: int(line.split(" step ")[1].split()[0]) for line in lines}


def leftovers(workdir: Path) -> list[str]:
    """Files and folders under temporary names, and steps that were moved aside."""
    patterns = {*TEMPORARY, *checkpoint.LEFTOVERS, checkpoint.DAMAGED}
    return sorted({str(path.relative_to(workdir)) for pattern in patterns for path in workdir.rglob(pattern)})


def arrays_of(step: Path) -> dict[str, np.ndarray]:
    """All arrays of one checkpoint: parameters, optimizer state, counters, key."""
    handler = ocp.PyTreeCheckpointHandler()
    names = handler.metadata(step / "state").tree
    whole = {path: ocp.RestoreArgs(restore_type=np.ndarray) for path in names}
    return handler.restore(step / "state", args=ocp.args.PyTreeRestore(restore_args=whole))


def differences(one: Path, other: Path, trained=tuple(TRAINED)) -> list[str]:
    """What two finished workdirs do not share bit for bit, in words; [] for the same job."""
    found = []
    for name in trained:
        steps = [
            sorted(int(p.name) for p in (w / name / "checkpoints").iterdir() if p.name.isdigit()) for w in (one, other)
        ]
        if steps[0][-1] != steps[1][-1]:
            found.append(f"{name}: steps {steps}")
            continue
        left, right = (arrays_of(w / name / "checkpoints" / str(steps[0][-1])) for w in (one, other))
        if left.keys() != right.keys() or any(not same_bits(left[path], right[path]) for path in left):
            found.append(f"{name}: the newest checkpoint")
        records = [metrics.read(w / name / metrics.FILE) for w in (one, other)]
        if [r["step"] for r in records[0]] != list(range(1, TRAINED[name] + 1)):
            found.append(f"{name}: the steps in {metrics.FILE}")
        plain = [[{key: value for key, value in r.items() if key != "seconds"} for r in part] for part in records]
        if plain[0] != plain[1]:
            found.append(f"{name}: {metrics.FILE}")
    for path in sorted(other.rglob("*.safetensors")):
        twin = one / path.relative_to(other)
        if not twin.exists() or twin.read_bytes() != path.read_bytes():
            found.append(str(path.relative_to(other)))
    for name in ("embed/embeddings.npz", "cluster/clusters.npz"):
        if (other / name).exists():
            left, right = np.load(one / name), np.load(other / name)
            if any(not same_bits(left[key], right[key]) for key in right.files):
                found.append(name)
    for path in sorted(other.glob("evaluate/*.jsonl")):
        texts = [
            [(r["id"], r["hypothesis"], r["route"]) for r in tiny_job.records(p)]
            for p in (path, one / path.relative_to(other))
        ]
        if texts[0] != texts[1]:
            found.append(str(path.relative_to(other)))
    return found


def same_bits(left, right) -> bool:
    left, right = np.asarray(left), np.asarray(right)
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def undisturbed(folder: Path, commands: Commands, command="all") -> tuple[Path, float]:
    """(finished workdir, processor seconds) of the job left alone; the first time ever, compilation is counted too."""
    shutil.rmtree(folder / "W", ignore_errors=True)
    code, said = commands.run(command, "--config", "job.py", "--workdir", "W")
    if code:
        raise RuntimeError(f"the job does not run: {said}")
    return folder / "W", commands.seconds


def optimizer():
    """Adam with a schedule, as the stages train with."""
    return optim.make_optimizer(learning_rate=1e-2, steps=100, warmup=2)[0]
