"""Memory and time of EAGLE with a 2B policy and a 9B environment, from programs that are compiled
for the chips of a slice, which need not be there.

    pip install libtpu==0.0.42.* && python -m benchmarks.sizing [--topology=v5e-16]

XLA's own compiler for TPUs takes our sampling and training programs at Gemma 2's shapes on a mesh
of 16 chips and tells, per chip: floating-point operations, bytes that operations read and write,
bytes of arguments and of temporaries, and the exchanges between chips. Compiled are decoders of 2
and of 4 layers (each a pair of local and global attention); a full one is the line through the two.
Time lies between
    max(operations / peak, arguments / HBM bandwidth) + exchanged / ICI bandwidth   and
    max(operations / peak, read and written / HBM bandwidth) + exchanged / ICI bandwidth:
arguments have to be read once; what is read and written counts copies to the chip's own fast
memory as well, and every operand as often as it is used. Nothing of the exchange is hidden. The
tables are printed as Markdown; those of launch/SIZING.md come from here.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.agent.policy_gradient import Experience, update_agent
from eagle_jax.eagle.agent.state import EagleSettings, init_agent
from eagle_jax.language_model.checkpoints.hf_config import decoder_config_from_hf
from eagle_jax.language_model.decoder.attention import KeyValue
from eagle_jax.language_model.decoder.config import DecoderConfig, LoRA
from eagle_jax.language_model.decoder.transformer import bind, causal_mask, init_params, token_positions
from eagle_jax.language_model.generation import SamplingSettings
from eagle_jax.language_model.sharding import AXES, tree_shardings
from eagle_jax.learning.policy_batch import PolicyBatch
from eagle_jax.learning.trainable import split

_TOPOLOGY = flags.DEFINE_enum("topology", None, ["v5e-16", "v4-32"], "One slice only.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """16 chips: their numbers of one chip, from https://cloud.google.com/tpu/docs/v5e and /v4.

    ici: bytes/s of one chip in both directions of one axis of the torus (How to Scale Your Model,
    https://jax-ml.github.io/scaling-book/tpus: 4.5e10 each way).
    """

    topology: str
    options: dict
    peak: float  # bf16 operations / s
    hbm: float  # bytes
    hbm_bandwidth: float  # bytes / s
    ici: float = 9.0e10


SLICES = {
    "v5e-16": Slice(topology="v5e:4x4", options={}, peak=197e12, hbm=16e9, hbm_bandwidth=819e9),
    "v4-32": Slice(
        topology="v4:2x2x4", options={"chip_config_name": "megacore"}, peak=275e12, hbm=32e9, hbm_bandwidth=1228e9
    ),
}

GEMMA_2 = {
    "model_type": "gemma2",
    "vocab_size": 256000,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "max_position_embeddings": 8192,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
}
POLICY = GEMMA_2 | {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 26,
}
ENVIRONMENT = GEMMA_2 | {
    "hidden_size": 3584,
    "intermediate_size": 14336,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_hidden_layers": 42,
}
LORA = LoRA(rank=16, alpha=32.0, targets="attention/(query|value)")

# One iteration: 32 episodes of 5 steps; a policy's prompt and action, an environment's and rewrite.
EPISODES, HORIZON = 32, 5
POLICY_TOKENS, ENVIRONMENT_TOKENS = (512, 64), (768, 256)
SETTINGS = EagleSettings(
    num_iterations=1,
    episodes_per_iteration=EPISODES,
    horizon=HORIZON,
    discount=1.0,
    gae_lambda=0.9,
    kl_coefficient=0.1,
    policy_learning_rate=1e-5,
    value_learning_rate=1e-3,
    value_hidden=(64,),
    value_updates=20,
    max_gradient_norm=1.0,
    normalize_advantages=True,
    minibatch_size=EPISODES,
    validate_every=1,
    checkpoint_every=1,
    policy=SamplingSettings(temperature=0.5, top_k=0, top_p=1.0, max_new_tokens=POLICY_TOKENS[1]),
)


class Cost(NamedTuple):
    """Of one call of a program, per chip."""

    operations: float
    moved: float
    exchanged: float
    arguments: float
    temporaries: float

    def seconds(self, chip: Slice) -> np.ndarray:
        """At least, and if all that operations read and write came from HBM."""
        at_hbm = np.array([self.arguments, self.moved]) / chip.hbm_bandwidth
        return np.maximum(self.operations / chip.peak, at_hbm) + self.exchanged / chip.ici


def on_mesh(mesh: Mesh, tree, dtype=None):
    """Shapes of parameters or optimiser state with their shardings; matrices may change dtype."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype, sharding=sharding),
        tree,
        tree_shardings(mesh, tree),
    )


def split_over(mesh: Mesh, axes: tuple, shape: tuple, dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))


def replicated(mesh: Mesh, tree):
    return jax.tree.map(lambda leaf: split_over(mesh, (), leaf.shape, leaf.dtype), tree)


def decode(config: DecoderConfig, mesh: Mesh, tokens: tuple[int, int], dtype) -> Cost:
    """One token of each of the episodes, on caches of bf16."""

    def step(params, token, positions, allowed, caches, slot):
        decoder = bind(config, params)
        states = decoder(decoder.embed(token), positions, allowed, caches, slot)
        return jnp.argmax(decoder.logits(states.last[:, 0]), axis=-1), states.caches

    slots, rows = sum(tokens), ("data", "fsdp")
    shape = (EPISODES, config.num_kv_heads, config.head_dim, slots)
    swapped = (*shape[:2], slots, config.head_dim)
    cache = KeyValue(
        split_over(mesh, (rows, "tensor"), shape, dtype), split_over(mesh, (rows, "tensor"), swapped, dtype)
    )
    one = jax.ShapeDtypeStruct((EPISODES, 1), jnp.int32)
    allowed = jax.ShapeDtypeStruct((EPISODES, 1, slots), bool)
    slot = jax.ShapeDtypeStruct((), jnp.int32)
    arguments = replicated(mesh, (one, one, allowed)) + ((cache,) * config.num_layers, replicated(mesh, slot))
    return cost(jax.jit(step, donate_argnums=4), mesh, weights(config, mesh, dtype), *arguments)


def prefill(config: DecoderConfig, mesh: Mesh, tokens: tuple[int, int], dtype) -> Cost:
    """The prompts of all episodes, up to the first drawn token."""

    def read(params, prompt, mask):
        decoder = bind(config, params)
        allowed, last = causal_mask(mask), prompt.shape[1] - 1
        states = decoder(decoder.embed(prompt), token_positions(mask), allowed, first=last)
        return jnp.argmax(decoder.logits(states.last[:, 0]), axis=-1), states.caches

    shape = (EPISODES, tokens[0])
    prompt, mask = jax.ShapeDtypeStruct(shape, jnp.int32), jax.ShapeDtypeStruct(shape, bool)
    arguments = replicated(mesh, (prompt, mask))
    return cost(jax.jit(read), mesh, weights(config, mesh, dtype), *arguments)


def train(config: DecoderConfig, mesh: Mesh, mode: str) -> Cost:
    """REINFORCE with exact KL on one minibatch of as many actions as there are episodes."""
    config = dataclasses.replace(config, remat=True)
    dtype = jnp.float32 if mode == "full" else jnp.bfloat16
    whole = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    trainable, frozen = split(whole, mode)
    state = jax.eval_shape(lambda tree: init_agent(tree, 8, SETTINGS, jax.random.key(0)), trainable)
    state = replicated(mesh, state)._replace(
        trainable=on_mesh(mesh, state.trainable), optimizer_state=on_mesh(mesh, state.optimizer_state)
    )
    length = sum(POLICY_TOKENS)
    batch = PolicyBatch(
        np.zeros((EPISODES, length), np.int32),
        np.ones((EPISODES, length), bool),
        np.ones((EPISODES, POLICY_TOKENS[1]), bool),
    )
    experience = Experience(batch, np.zeros((EPISODES, 1, 8), np.float32), np.zeros(EPISODES, np.float32))
    run = functools.partial(update_agent, config, SETTINGS)
    return cost(
        jax.jit(run, donate_argnums=2),
        mesh,
        on_mesh(mesh, frozen, dtype),
        on_mesh(mesh, trainable),
        state,
        replicated(mesh, experience),
    )


def weights(config: DecoderConfig, mesh: Mesh, dtype):
    return on_mesh(mesh, jax.eval_shape(lambda: init_params(config, jax.random.key(0))), dtype)


def cost(program: Callable, mesh: Mesh, *arguments) -> Cost:
    """What the compiler says of the program."""
    with jax.set_mesh(mesh):
        compiled = program.lower(*arguments).compile()
    analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return Cost(
        analysis["flops"],
        analysis["bytes accessed"],
        float(sum(_exchanged(compiled.as_text()))),
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
    )


_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
_EXCHANGE = re.compile(rf" = (.*?) ({_KINDS})(?:-start)?\((?:.*?channel_id=(\d+))?")
_ARRAY = re.compile(r"(bf16|f32|s32|pred|u32)\[([\d,]*)\]")
_BYTES = {"bf16": 2, "f32": 4, "s32": 4, "u32": 4, "pred": 1}


def _exchanged(text: str) -> Iterator[int]:
    """Bytes of each exchange: its largest array, twice for a sum that all chips get.

    An exchange that goes on in steps beside other work is written once a step, on one channel.
    """
    channels = set()
    for result, kind, channel in _EXCHANGE.findall(text):
        if channel and channel in channels:
            continue
        channels.add(channel)
        sizes = [
            _BYTES[dtype] * int(np.prod([int(n) for n in shape.split(",") if n]))
            for dtype, shape in _ARRAY.findall(result)
        ]
        yield max(sizes, default=0) * (2 if kind == "all-reduce" else 1)


def whole_decoder(shape: dict, lora: LoRA | None, measure: Callable[[DecoderConfig], Cost]) -> Cost:
    """The line through decoders of 2 and 4 layers, at as many as the shape says."""

    def of(layers: int) -> Cost:
        config = decoder_config_from_hf(shape | {"num_hidden_layers": layers})
        return measure(dataclasses.replace(config, lora=lora))

    few, more = of(2), of(4)
    steps = (shape["num_hidden_layers"] - 2) / 2
    return Cost(*(a + (b - a) * steps for a, b in zip(few, more, strict=True)))


def make_mesh(chip: Slice, shape: tuple[int, int, int]) -> Mesh:
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=chip.topology, **chip.options)
    except RuntimeError as error:
        raise UserError(f"no compiler for TPUs: pip install libtpu ({error})") from error
    return Mesh(np.array(described.devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 3)


def report(name: str) -> Iterator[str]:
    """The slice's table, line by line."""
    chip, half, single = SLICES[name], jnp.bfloat16, jnp.float32
    yield f"### {name}"
    yield ""
    yield (
        "| program, mesh (data, fsdp, tensor) | Tflop | GB of arguments | GB held "
        "| GB read and written | GB exchanged | ms |"
    )
    yield "|---|---|---|---|---|---|---|"
    acting = {}
    for label, shape, lora, mesh_shape, measure, calls in (
        ("policy LoRA, prefill", POLICY, LORA, (4, 1, 4), (prefill, POLICY_TOKENS, half), 5),
        ("policy LoRA, a token", POLICY, LORA, (4, 1, 4), (decode, POLICY_TOKENS, half), 5 * 64),
        ("policy LoRA, update of 32 actions", POLICY, LORA, (4, 1, 4), (train, "lora"), 5),
        ("policy full, prefill", POLICY, None, (1, 4, 4), (prefill, POLICY_TOKENS, single), 5),
        ("policy full, a token", POLICY, None, (1, 4, 4), (decode, POLICY_TOKENS, single), 5 * 64),
        ("policy full, update of 32 actions", POLICY, None, (1, 4, 4), (train, "full"), 5),
        ("environment, prefill", ENVIRONMENT, None, (2, 1, 8), (prefill, ENVIRONMENT_TOKENS, half), 5),
        ("environment, a token", ENVIRONMENT, None, (2, 1, 8), (decode, ENVIRONMENT_TOKENS, half), 5 * 256),
    ):
        mesh, (function, *rest) = make_mesh(chip, mesh_shape), measure
        of = whole_decoder(shape, lora, lambda c, f=function, m=mesh, r=rest: f(c, m, *r))
        who = label.split(",")[0]
        total, most_held = acting.get(who, (np.zeros(2), 0.0))
        seconds, held = of.seconds(chip), of.arguments + of.temporaries
        acting[who] = (total + calls * seconds, max(most_held, held))
        yield (
            f"| {label}, {mesh_shape} | {of.operations / 1e12:.3f} | {of.arguments / 1e9:.2f} "
            f"| {held / 1e9:.2f} | {of.moved / 1e9:.2f} | {of.exchanged / 1e9:.2f} "
            f"| {_range(1e3 * seconds)} |"
        )
    yield ""
    environment, environment_held = acting["environment"]
    for who in ("policy LoRA", "policy full"):
        seconds, held = acting[who]
        yield (
            f"- {who}: {_range(seconds + environment)} s an iteration ({_range(seconds)} s the "
            f"policy, {_range(environment)} s the environment); {held / 1e9:.1f} GB and "
            f"{environment_held / 1e9:.1f} GB of {chip.hbm / 1e9:.0f} GB a chip"
        )


def _range(bounds: np.ndarray) -> str:
    return " to ".join(f"{bound:.1f}" for bound in bounds)


def main(_) -> None:
    for name in [_TOPOLOGY.value] if _TOPOLOGY.value else SLICES:
        for line in report(name):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    app.run(main)
