"""The optimiser of everything that is trained: full parameters, LoRA, adapters, value networks."""

from __future__ import annotations

import jax
import optax


def make_optimizer(
    learning_rate: optax.ScalarOrSchedule,
    *,
    max_gradient_norm: float | None,
    weight_decay: float,
    second_moment_decay: float,
) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) with decoupled decay (Loshchilov & Hutter 2019, AdamW).

    Gradients are clipped by their global norm (None: not). Matrices decay; norms, biases and other
    vectors do not.
    """
    if weight_decay:
        adam = optax.adamw(
            learning_rate,
            b2=second_moment_decay,
            weight_decay=weight_decay,
            mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
        )
    else:
        adam = optax.adam(learning_rate, b2=second_moment_decay)
    if max_gradient_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(max_gradient_norm), adam)


def warmup_cosine(peak: float, warmup_steps: int, num_steps: int) -> optax.Schedule:
    """From 0 up to `peak` in `warmup_steps`, along a cosine down to a tenth at `num_steps`."""
    return optax.warmup_cosine_decay_schedule(
        0.0, peak, warmup_steps, max(num_steps, warmup_steps + 1), 0.1 * peak
    )
