"""The one optimiser against PyTorch's, with clipping, decay and a schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eagle_jax.learning.optimizers import make_optimizer, warmup_cosine

NUM_STEPS = 12


@pytest.mark.parametrize(
    ("name", "max_gradient_norm", "weight_decay", "second_moment_decay"),
    [
        ("adamw", 1.0, 0.1, 0.98),
        ("adamw", 0.5, 0.0, 0.999),
        ("adamw", None, 0.0, 0.999),
        ("rmsprop", 1.0, 0.1, 0.99),
        ("rmsprop", None, 0.0, 0.9),
    ],
)
def test_steps_are_those_of_pytorch(name, max_gradient_norm, weight_decay, second_moment_decay):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    params = {"matrix": rng.normal(size=(3, 4)).astype(np.float32), "vector": rng.normal(size=5).astype(np.float32)}
    schedule = warmup_cosine(0.05, 3, NUM_STEPS)
    optimizer = make_optimizer(
        schedule,
        max_gradient_norm=max_gradient_norm,
        weight_decay=weight_decay,
        second_moment_decay=second_moment_decay,
        name=name,
    )
    theirs = {name: torch.tensor(leaf, requires_grad=True) for name, leaf in params.items()}
    groups = [
        {"params": [theirs["matrix"]], "weight_decay": weight_decay},
        {"params": [theirs["vector"]], "weight_decay": 0.0},
    ]
    if name == "adamw":
        their_optimizer = torch.optim.AdamW(groups, betas=(0.9, second_moment_decay))
    else:
        their_optimizer = torch.optim.RMSprop(groups, alpha=second_moment_decay)
    ours = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(ours)
    for step in range(NUM_STEPS):
        size = 3.0 if step % 2 else 0.03  # every other gradient is clipped
        gradient = {name: (size * rng.normal(size=leaf.shape)).astype(np.float32) for name, leaf in params.items()}
        updates, state = optimizer.update(gradient, state, ours)
        ours = optax.apply_updates(ours, updates)
        for name, leaf in theirs.items():
            leaf.grad = torch.tensor(gradient[name])
        if max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(theirs.values(), max_gradient_norm)
        for group in their_optimizer.param_groups:
            group["lr"] = float(schedule(step))
        their_optimizer.step()
    for name, leaf in theirs.items():
        assert np.abs(ours[name] - params[name]).max() > 0.05
        np.testing.assert_allclose(ours[name], leaf.detach().numpy(), atol=2e-6)


def test_a_schedule_shorter_than_its_warm_up_is_only_the_warm_up():
    schedule = warmup_cosine(0.1, 10, 5)
    np.testing.assert_allclose([schedule(0), schedule(4)], [0.0, 0.04], rtol=1e-6)
