"""Meshes (data, fsdp, tensor), and one table that says how every array lies on them.

data: the batch is split. fsdp: so is the batch, and every parameter is stored in parts that are
gathered where they are used (ZeRO stage 3; Rajbhandari et al. 2020). tensor: heads, hidden units
and vocabulary are split (Megatron-LM; Shoeybi et al. 2019, section 3).

Axes: B batch, T tokens, S cache slots, D model width, H query heads, G key/value heads, F hidden
units of the feed-forward, V vocabulary.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import setting, settings

Tree = TypeVar("Tree")
AXES = ("data", "fsdp", "tensor")

# End of a leaf's path -> the mesh axis of each dimension, None: not split; the first pattern that
# matches decides. Kernels are [inputs, outputs].
_RULES = tuple(
    (re.compile(f"(?:^|/)(?:{pattern})$"), axes)
    for pattern, axes in (
        (r"adapter(?:_input)?/.+", None),  # small: replicated
        (r"token_embedding|unembedding", ("tensor", "fsdp")),
        (r"(?:query|key|value|gate|up)/kernel", ("fsdp", "tensor")),
        (r"(?:query|key|value|gate|up)/lora_down", ("fsdp", None)),
        (r"(?:query|key|value|gate|up)/lora_up", (None, "tensor")),
        (r"(?:query|key|value|gate|up)/bias", ("tensor",)),
        (r"(?:output|down)/kernel", ("tensor", "fsdp")),
        (r"(?:output|down)/lora_down", ("tensor", None)),
        (r"(?:output|down)/lora_up", (None, "fsdp")),
        (r"(?:output|down)/bias", (None,)),
        (r"\w*norm/(?:scale|bias)", (None,)),
        (r"position_embedding", (None, "fsdp")),
        (r"unembedding_bias", ("tensor",)),
    )
)
# Letter of an activation's axis -> the mesh axes it is split over; other letters are not split.
_ACTIVATION_AXES = {"B": ("data", "fsdp"), "H": "tensor", "G": "tensor", "F": "tensor", "V": "tensor"}


class MeshError(UserError):
    """A mesh does not fit the devices, or an array has no place on it."""


@settings
class MeshSettings:
    """Devices along each axis, one of them may be -1 (all that remain).

    Two models lie on disjoint slices when one begins where the other ends. Of several processes
    each gives an equal share to every mesh, so that all of them can read what is computed on it.
    """

    data: int = setting("Batches are split among so many.", at_least=-1)
    fsdp: int = setting("Batches, parameters and optimiser state are split.", at_least=-1)
    tensor: int = setting("Heads and hidden units are split among so many.", at_least=-1)
    first_device: int = setting("Index of the mesh's first device.", at_least=0)

    def __post_init__(self):
        shape = (self.data, self.fsdp, self.tensor)
        if shape.count(-1) > 1 or 0 in shape:
            raise ValueError(f"mesh {shape}: sizes are at least 1, and one of them may be -1")


def make_mesh(settings: MeshSettings) -> Mesh:
    """The mesh with axes ("data", "fsdp", "tensor"). Raises MeshError when it does not fit."""
    shape = [settings.data, settings.fsdp, settings.tensor]
    available = jax.device_count() - settings.first_device
    known = math.prod(size for size in shape if size != -1)
    if -1 in shape:
        shape[shape.index(-1)] = max(available, 0) // known
    count = math.prod(shape)
    if not 0 < count <= available or (-1 in dataclasses.astuple(settings) and count != available):
        raise MeshError(
            f"mesh (data={settings.data}, fsdp={settings.fsdp}, tensor={settings.tensor}) from "
            f"device {settings.first_device} on does not fit the {jax.device_count()} devices here"
        )
    devices = _equal_shares(settings.first_device, count)
    return jax.make_mesh(tuple(shape), AXES, (AxisType.Auto,) * 3, devices=devices)


def _equal_shares(first: int, count: int) -> list[jax.Device]:
    """`count` of the devices, as many of each process."""
    processes = jax.process_count()
    if first % processes or count % processes:
        raise MeshError(
            f"mesh of {count} devices from device {first} on: {processes} processes cannot give "
            "equal shares; both numbers have to be multiples of the number of processes"
        )
    share = slice(first // processes, (first + count) // processes)
    local = [[device for device in jax.devices() if device.process_index == process] for process in range(processes)]
    return [device for devices in local for device in devices[share]]


def tree_shardings(mesh: Mesh | jax.sharding.AbstractMesh, shapes: Any) -> Any:
    """Shardings of parameters, LoRA leaves and optimiser state: leaves need `shape` only.

    A leaf's rule is found by the end of its path; scalars are replicated, and so is a dimension
    that its mesh axis does not divide. Raises MeshError naming a leaf that no rule covers.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _sharding(mesh, _parameter_axes(path, leaf.shape), leaf.shape), shapes
    )


def _parameter_axes(path: Any, shape: tuple[int, ...]) -> tuple:
    if not shape:
        return ()
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    found = [axes or (None,) * len(shape) for pattern, axes in _RULES if pattern.search(name)]
    if not found or len(found[0]) != len(shape):
        raise MeshError(f"no rule says how {name} {list(shape)} lies on a mesh; add one to the table in {__name__}")
    return found[0]


def _sharding(mesh: Any, axes: tuple, shape: tuple[int, ...]) -> NamedSharding:
    """Splits the dimensions that their mesh axes divide."""

    def divides(axis: str | tuple[str, ...], size: int) -> bool:
        names = (axis,) if isinstance(axis, str) else axis
        return size % math.prod(mesh.shape[name] for name in names) == 0

    kept = [axis if axis and divides(axis, size) else None for axis, size in zip(axes, shape, strict=True)]
    return NamedSharding(mesh, PartitionSpec(*kept))


def constrain(array: jax.Array, axes: str) -> jax.Array:
    """`array` with its axes, a letter each ("BTHd"), split as the table says.

    Under `jax.set_mesh`; elsewhere, and on a mesh of one device, it is the array itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return array
    return jax.lax.with_sharding_constraint(array, _sharding(mesh, _activation_axes(mesh, axes), array.shape))


def _activation_axes(mesh: Any, axes: str) -> tuple:
    """Mesh axes of each dimension, without those that a function of `on_own_rows` has to itself."""
    found = (_ACTIVATION_AXES.get(letter) for letter in axes)
    names = [(each,) if isinstance(each, str) else each or () for each in found]
    return tuple(tuple(name for name in each if name not in mesh.manual_axes) or None for each in names)


def on_own_rows(function: Callable[[Any, Any], tuple[Any, Any]], whole: Any, rows: Any) -> tuple[Any, Any]:
    """function(whole, rows) -> (sums, outputs), of rows and outputs [B, ...] each device has its own part.

    It is called on what is a device's own along (data, fsdp), for which `whole` is gathered once;
    its sums are added up at the end. Along `tensor` the compiler goes on to split everything.
    Without a mesh, or where its axes do not divide B, it is a plain call.
    """
    mesh, batch = jax.sharding.get_abstract_mesh(), _ACTIVATION_AXES["B"]
    parts = 1 if mesh.empty else math.prod(mesh.shape[name] for name in batch)
    if parts == 1 or any(leaf.shape[0] % parts for leaf in jax.tree.leaves(rows)):
        return function(whole, rows)

    def on_one(whole, rows):
        sums, outputs = function(whole, rows)
        return jax.lax.psum(sums, batch), outputs

    own = PartitionSpec(batch)
    mapped = jax.shard_map(
        on_one,
        in_specs=(PartitionSpec(), own),
        out_specs=(PartitionSpec(), own),
        axis_names=set(batch),
        check_vma=False,
    )
    return mapped(whole, rows)


def platform() -> str:
    """Kind of device for which a program is compiled that is traced now."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.device_kind


def shard_size(shape: tuple[int, ...], axes: str) -> int:
    """Elements that each device of the mesh, if there is one, has of an activation with these axes."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return math.prod(shape)
    return math.prod(_sharding(mesh, _activation_axes(mesh, axes), shape).shard_shape(shape))


def constrain_tree(tree: Tree) -> Tree:
    """Parameters or optimiser state, computed under `jax.set_mesh`, where `tree_shardings` says."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, tree_shardings(mesh, tree))


def mesh_of(params: Any) -> Mesh | None:
    """The mesh on which parameters lie; None: on one device, without a mesh."""
    sharding = getattr(jax.tree.leaves(params)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) else None


def on_mesh_of(params: Any) -> contextlib.AbstractContextManager:
    """The context in which functions of these parameters are called and compiled."""
    mesh = mesh_of(params)
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def fetch(tree: Tree) -> Tree:
    """Arrays as numpy arrays, whole in every process."""

    def gather(leaf: Any) -> Any:
        is_here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        return leaf if is_here else multihost_utils.process_allgather(leaf, tiled=True)

    return jax.device_get(jax.tree.map(gather, tree))
