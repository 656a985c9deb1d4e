"""The sizing page's arithmetic: what the compiler counts, by hand on a small decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import sizing
from eagle_jax.language_model.sharding import MeshSettings, make_mesh

SMALL = sizing.GEMMA_2 | {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_hidden_layers": 6,
}
CHIP = sizing.Slice(topology="", options={}, peak=100.0, hbm=1.0, hbm_bandwidth=10.0, ici=1.0)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshSettings(data=2, fsdp=2, tensor=2, first_device=0))


def test_the_parts_of_a_decoding_step_are_counted(mesh):
    tokens = (24, 8)
    found = sizing.whole_decoder(SMALL, None, lambda config: sizing.decode(config, mesh, tokens, jnp.float32))
    # A layer: query and output 64 x 64, key and value 64 x 32, three of 64 x 96, over fsdp and
    # tensor; four norms of 64, whole; the cache of 8 rows, 1 group, 16 wide, 32 slots, twice.
    matrices = (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96) // 4
    layer = 4 * (matrices + 4 * 64 + 2 * 8 * 1 * 16 * 32)
    outer = 4 * (128 * 64 // 4 + 64)
    inputs = 2 * 4 * 32 + 32 * 32 + 4  # token, position; what is seen; the slot
    assert found.arguments == pytest.approx(6 * layer + outer + inputs, rel=1e-3)
    # Two operations for each weight and row at least, the logits once: rows over 4, columns over 2.
    operations = 2 * (32 // 4) * (6 * 4 * matrices + 128 * 64) / 2
    assert operations < found.operations < 1.6 * operations
    assert found.exchanged > 0


@pytest.mark.parametrize(("lora", "mode"), [(sizing.LORA, "lora"), (None, "full")])
def test_an_update_holds_the_trained_part_its_optimiser_and_the_reference(mesh, lora, mode):
    def size_of(part):
        leaves = zip(jax.tree.leaves(part), jax.tree.leaves(sizing.tree_shardings(mesh, part)), strict=True)
        return sum(np.prod(sharding.shard_shape(leaf.shape)) for leaf, sharding in leaves)

    config = sizing.decoder_config_from_hf(SMALL | {"num_hidden_layers": 1})
    config = sizing.dataclasses.replace(config, lora=lora)
    held = sizing.train(config, mesh, mode)
    trained, frozen = sizing.split(jax.eval_shape(lambda: sizing.init_params(config, jax.random.key(0))), mode)
    # State: parameters and two moments; the reference; the frozen part in bfloat16.
    batch = 32 * (sum(sizing.POLICY_TOKENS) * 5 + sizing.POLICY_TOKENS[1])
    rest = held.arguments - 4 * 4 * size_of(trained) - 2 * size_of(frozen) - batch
    assert 0 <= rest < 30_000  # the value network and its statistics


def test_time_is_the_slower_of_computing_and_reading_and_then_exchanging():
    cost = sizing.Cost(operations=200.0, moved=50.0, exchanged=3.0, arguments=10.0, temporaries=0.0)
    assert cost.seconds(CHIP).tolist() == [200 / 100 + 3, 50 / 10 + 3]
    assert cost._replace(arguments=30.0).seconds(CHIP).tolist() == [30 / 10 + 3, 50 / 10 + 3]


def test_exchanges_are_read_from_the_program():
    text = """
  %a = bf16[4,8]{1,0} all-gather(%p), dimensions={0}
  %b = (f32[2,8]{1,0}, f32[4,8]{1,0}) all-gather-start(%q), dimensions={0}
  %c = f32[16]{0} all-reduce(%r), to_apply=%add
  %d = f32[4,8]{1,0} all-gather-done(%b)
  %e = f32[9]{0} add(%c, %c)
  %f = f32[7]{0} all-gather(%s), channel_id=3, dimensions={0}
  %g = f32[7]{0} all-gather(%t), channel_id=3, dimensions={0}
"""
    assert list(sizing._exchanged(text)) == [4 * 8 * 2, 4 * 8 * 4, 2 * 16 * 4, 7 * 4]


def test_a_full_decoder_lies_on_the_line_through_two_small_ones():
    def measure(config):
        return sizing.Cost(*(np.array([1, 2, 3, 4, 5]) * config.num_layers + 7.0))

    found = sizing.whole_decoder(SMALL, None, measure)
    assert found == tuple(np.array([1, 2, 3, 4, 5]) * 6 + 7.0)
