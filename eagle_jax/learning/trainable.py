"""Which parameters are trained: patterns over their paths, which must cover every parameter.

The two parts are nested dictionaries like the whole. Only the trained one is donated to update
steps, differentiated, given optimiser state and saved in checkpoints; the frozen one is an argument
of its own, one set of buffers for every model that is built on it.
"""

from __future__ import annotations

import re
from typing import Literal

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from eagle_jax.base.errors import UserError
from eagle_jax.language_model.decoder.transformer import Params

TrainingMode = Literal["full", "lora", "adapter"]

_DECODER = r"(.+/)?(token_embedding|position_embedding|unembedding(_bias)?|kernel|bias|scale)"
_STATISTICS = r"adapter_input/.+"  # of the embeddings that an ELM reads: facts, not parameters
# (pattern, is it trained?); the first pattern that matches a whole path decides.
_RULES: dict[TrainingMode, tuple[tuple[str, bool], ...]] = {
    "full": ((_STATISTICS, False), (r".+", True)),
    "lora": ((_STATISTICS, False), (r"adapter/.+", True), (r"(.+/)?lora_(down|up)", True), (_DECODER, False)),
    "adapter": ((_STATISTICS, False), (r"adapter/.+", True), (_DECODER, False)),
}


class TrainableError(UserError):
    """The parameters are not those that a mode of training is for."""


def split(params: Params, mode: TrainingMode) -> tuple[Params, Params]:
    """(trainable, frozen): all | low-rank leaves and adapters | adapters; and the rest.

    Adapters are what is below "adapter/"; what is below "adapter_input/" is never trained. Raises
    TrainableError for a parameter that no pattern covers, for one to be trained that is not
    float32 (a bfloat16 weight rounds small steps away), and when nothing is left to train.
    """
    trainable, frozen = {}, {}
    for path, leaf in flatten_dict(params, sep="/").items():
        covering = (is_trained for rule, is_trained in _RULES[mode] if re.fullmatch(rule, path))
        is_trained = next(covering, None)
        if is_trained is None:
            raise TrainableError(
                f"training mode {mode!r}: no pattern says whether {path} is trained or frozen; "
                f"patterns are {', '.join(rule for rule, _ in _RULES[mode])}"
            )
        if is_trained and leaf.dtype != jnp.float32:
            raise TrainableError(
                f"training mode {mode!r} trains {path}, which is {leaf.dtype}; only float32 is "
                "trained: load the model as float32, or train LoRA beside it"
            )
        (trainable if is_trained else frozen)[path] = leaf
    if not trainable:
        raise TrainableError(
            f"training mode {mode!r} leaves nothing to train: no parameter's path matches "
            f"{', '.join(rule for rule, is_trained in _RULES[mode] if is_trained)}"
        )
    return unflatten_dict(trainable, sep="/"), unflatten_dict(frozen, sep="/")


def join(trainable: Params, frozen: Params) -> Params:
    """The whole of which `split` made two parts; the same arrays."""
    parts = flatten_dict(trainable, sep="/") | flatten_dict(frozen, sep="/")
    return unflatten_dict(parts, sep="/")
