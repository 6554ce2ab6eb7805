"""The device mesh, and which axis of which array lies across it. The only home of mesh axis names.

    data    rows of the batch; parameters are copied
    fsdp    rows of the batch too; backbone kernels are cut along their longest axis and gathered when used
    expert  the expert axis of the stacked experts
    model   tensor parallelism inside the backbone's linear layers (Megatron: out, then in)

Rules go by path, the way of big_vision's `sharding.py`: a rule that cannot apply (an axis that does not divide) leaves
the array replicated along that mesh axis and says so once in the log.
"""

import functools
import logging
import math

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from moejax.errors import BadValue

DATA, FSDP, EXPERT, MODEL = AXES = ("data", "fsdp", "expert", "model")
BATCH_AXES = (DATA, FSDP)
OUT_PARALLEL = ("q", "k", "v", "fc1", "gate", "up")  # kernels [in, out] cut on their out axis ...
IN_PARALLEL = ("out", "fc2", "down")  # ... and these on their in axis, so that one sum per pair suffices

log = logging.getLogger(__name__)


def make_mesh(shape, devices=None):
    """Mesh over `devices` (default: all) from e.g. {"data": -1, "expert": 4}; axes not named exist with size 1.

    One entry may be -1 and takes what is left. Raises ValueError when the sizes do not fit the number of devices.
    Axes are Auto (the compiler chooses intermediate shardings): since jax 0.7 the default is Explicit.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = mesh_sizes(shape, len(devices))
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def own_mesh():
    """Mesh of this process' devices, all along `data`: where one of several works by itself."""
    return make_mesh({DATA: -1}, jax.local_devices())


def pretend_mesh(shape, count):
    """What `make_mesh` would make of `count` devices that need not exist: for plans and shapes, not for arrays."""
    sizes = mesh_sizes(shape, count)
    return AbstractMesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_sizes(shape, count):
    """{axis: devices along it} of all four axes. Raises ValueError when they do not multiply to `count`."""
    if unknown := sorted(set(shape) - set(AXES)):
        raise ValueError(f"unknown mesh axis {unknown[0]!r}; known: {', '.join(AXES)}")
    sizes = {axis: int(shape.get(axis, 1)) for axis in AXES}
    free = [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if len(free) > 1 or any(size == 0 or size < -1 for size in sizes.values()):
        raise BadValue(f"mesh {dict(shape)}: sizes are positive, and at most one is -1")
    if free:
        sizes[free[0]] = count // fixed
    if math.prod(sizes.values()) != count:
        raise BadValue(f"mesh {dict(shape)} does not fit {count} devices: its product must be {count}")
    return sizes


def path_string(path):
    """'expert/decoder/0/q/A' from a jax key path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def replicated(mesh):
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh):
    """Leading axis over (data, fsdp); usable for a whole batch tree, as leaves with more axes keep the others whole."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def param_sharding(params, mesh):
    """Tree of NamedSharding like `params` ({"backbone": .., "expert": .., "gate": ..}; arrays or ShapeDtypeStructs).

    Expert leaves named A [.., E, D, R] and B [.., E, R, O] cut E over `expert`; backbone arrays of two or more axes
    cut over `model` (by layer name) and `fsdp` (longest axis still free that divides); all else is replicated. Leading
    axes before those named (layers stacked for a scan) are left whole by the expert and model rules.
    """

    def rule(path, leaf):
        return NamedSharding(mesh, param_spec(path_string(path), tuple(leaf.shape), mesh))

    return jax.tree_util.tree_map_with_path(rule, params)


def param_spec(path, shape, mesh):
    """PartitionSpec of one parameter; see `param_sharding`."""
    parts = path.removesuffix("/values").split("/")  # the numbers of an int8 kernel lie as the kernel would
    group, leaf, module = parts[0], parts[-1], parts[-2] if len(parts) > 1 else ""
    spec = [None] * len(shape)
    if group == "expert" and leaf in ("A", "B") and len(shape) >= 3:
        _cut(spec, shape, len(shape) - 3, EXPERT, mesh, path)
    elif group == "backbone" and len(shape) >= 2:
        if leaf == "kernel" and module in OUT_PARALLEL + IN_PARALLEL:
            _cut(spec, shape, len(shape) - (1 if module in OUT_PARALLEL else 2), MODEL, mesh, path)
        free = [i for i in range(len(shape)) if spec[i] is None]
        fitting = [i for i in free if shape[i] % mesh.shape[FSDP] == 0]
        _cut(spec, shape, max(fitting or free, key=lambda i: shape[i]), FSDP, mesh, path)
    while spec and spec[-1] is None:  # the shortest form, so that equal shardings compare equal
        spec.pop()
    return PartitionSpec(*spec)


def _cut(spec, shape, index, axis, mesh, path):
    """Put `axis` at `index` of `spec`, in place, when the mesh cuts along it and the array divides."""
    if mesh.shape[axis] == 1:
        return
    if shape[index] % mesh.shape[axis]:
        _say_once(f"{path} {shape}: axis {index} does not divide by {axis}={mesh.shape[axis]}; replicated along {axis}")
    else:
        spec[index] = axis


@functools.cache
def _say_once(message):
    log.warning("%s", message)


def process_shard(mesh):
    """(index, count): this process holds the index-th of `count` equal runs of rows of every global batch.

    (0, 1) for one process; also where the batch axes lie inside each process (say expert or model across processes),
    as every process then needs all rows. ValueError when this process's rows are no such run: order the devices
    otherwise.
    """
    cuts = mesh.shape[DATA] * mesh.shape[FSDP]
    held = batch_sharding(mesh).addressable_devices_indices_map((cuts,)).values()
    rows = sorted({row for index in held if index for row in range(*index[0].indices(cuts))})
    count, left = divmod(cuts, len(rows))
    if left or rows[0] % len(rows) or rows != list(range(rows[0], rows[0] + len(rows))):
        raise BadValue(f"process {jax.process_index()} holds rows {rows} of {cuts}: not one of several equal runs")
    return rows[0] // len(rows), count


def shard_batch(batch, mesh):
    """Global arrays from this process's rows (numpy tree; see `process_shard`), leading axis over (data, fsdp).

    Raises ValueError when the global number of rows does not divide by data * fsdp.
    """
    sharding, (_, count) = batch_sharding(mesh), process_shard(mesh)
    cuts = mesh.shape[DATA] * mesh.shape[FSDP]

    def place(path, leaf):
        leaf = np.asarray(leaf)
        if leaf.ndim == 0 or (leaf.shape[0] * count) % cuts:
            rows = leaf.shape[0] * count if leaf.ndim else "no"
            raise BadValue(f"batch leaf {path_string(path)}: {rows} rows do not divide by data * fsdp = {cuts}")
        return jax.make_array_from_process_local_data(sharding, leaf, (leaf.shape[0] * count, *leaf.shape[1:]))

    return jax.tree_util.tree_map_with_path(place, batch)
