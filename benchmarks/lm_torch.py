"""PyTorch's `transformers` and TRL, as contenders of `language_models`; the checkpoint is theirs.

Each function returns run(turn) -> (seconds, values to be compared), like those of `lm_ours`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from benchmarks import lm_inputs


def _use_cores() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def checkpoint(*, folder, decoder):
    """Random weights, written once."""

    def run(_):
        torch.manual_seed(0)
        start = time.perf_counter()
        config = Qwen3Config(**decoder, bos_token_id=None, eos_token_id=None, pad_token_id=0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
        return time.perf_counter() - start, {}

    return run


def _read(folder: str) -> Qwen3ForCausalLM:
    _use_cores()
    return AutoModelForCausalLM.from_pretrained(Path(folder), dtype=torch.float32)


def sampling(*, folder, batch, prompt_length, new_tokens, temperature, top_p, shared):
    """`generate` with its dynamic cache, which is the faster one on a processor."""
    model = _read(folder).eval()
    tokens = lm_inputs.token_ids(0, batch, prompt_length, model.config.vocab_size, shared)
    tokens = torch.from_numpy(tokens).long()
    drawing = {"do_sample": temperature > 0}
    if temperature > 0:
        drawing |= {"temperature": temperature, "top_p": top_p, "top_k": 0}

    def run(turn):
        torch.manual_seed(turn)
        start = time.perf_counter()
        with torch.inference_mode():
            output = model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new_tokens, **drawing
            )
        drawn = output[:, prompt_length:].numpy()
        return time.perf_counter() - start, {"tokens": drawn.tolist()}

    return run


def _adamw(model, learning_rate, weight_decay, second_moment_decay) -> torch.optim.AdamW:
    """Matrices decay, vectors do not; the fused kernel, which is the fastest."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, second_moment_decay),
        eps=1e-8,
        fused=True,
    )


def sft(*, folder, batch, length, steps, learning_rate, weight_decay):
    """AdamW steps on the loss that `transformers` computes from labels."""
    model = _read(folder).train()
    optimizer = _adamw(model, learning_rate, weight_decay, 0.98)
    tokens = torch.from_numpy(lm_inputs.token_ids(1, batch, length, model.config.vocab_size)).long()
    mask = torch.ones_like(tokens)

    def run(_):
        losses, norms = [], []
        start = time.perf_counter()
        for _ in range(steps):
            loss = model(input_ids=tokens, attention_mask=mask, labels=tokens, use_cache=False).loss
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return (time.perf_counter() - start) / steps, {"loss": losses, "gradient_norm": norms}

    return run


def reinforce(*, folder, batch, prompt_length, action_length, steps, learning_rate, kl_coefficient):
    """The step of `lm_ours.reinforce` as TRL's GRPOTrainer goes about one.

    Policy and reference with `logits_to_keep` = the action's tokens, the reference without
    gradients, advantages standardised over the batch; the divergence is exact, where TRL
    estimates it from the drawn tokens.
    """
    policy, reference = _read(folder).train(), _read(folder).eval()
    optimizer = _adamw(policy, learning_rate, 0.0, 0.999)
    length, vocab_size = prompt_length + action_length, policy.config.vocab_size
    tokens = torch.from_numpy(lm_inputs.token_ids(2, batch, length, vocab_size)).long()
    lengths = lm_inputs.action_lengths(3, batch, action_length)
    action_mask = torch.from_numpy(np.arange(action_length)[None] < lengths[:, None])
    mask = torch.cat([torch.ones(batch, prompt_length), action_mask], dim=1).long()
    rewards = torch.from_numpy(lm_inputs.rewards(4, batch))
    advantages = (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-8)
    actions = tokens[:, prompt_length:]

    def logits_of(model):
        # The token at t is predicted at t - 1.
        output = model(input_ids=tokens, attention_mask=mask, logits_to_keep=action_length + 1, use_cache=False)
        return output.logits[:, :-1]

    def step():
        with torch.no_grad():
            reference_logits = logits_of(reference)
        log_policy = torch.log_softmax(logits_of(policy), -1)
        drawn = log_policy.gather(-1, actions[..., None])[..., 0]
        log_reference = torch.log_softmax(reference_logits, -1)
        divergence = (log_policy.exp() * (log_policy - log_reference)).sum(-1)
        kl = (divergence * action_mask).sum(1).mean()
        loss = -(advantages * (drawn * action_mask).sum(1)).mean()
        (loss + kl_coefficient * kl).backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {"loss": loss.item(), "kl": kl.item(), "gradient_norm": norm.item()}

    def run(_):
        start = time.perf_counter()
        done = [step() for _ in range(steps)]
        seconds = (time.perf_counter() - start) / steps
        return seconds, {name: [values[name] for values in done] for name in done[0]}

    return run
