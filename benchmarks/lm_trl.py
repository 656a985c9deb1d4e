"""TRL's SFTTrainer, as a contender of `language_models`."""

from __future__ import annotations

import os
import time
from pathlib import Path

import datasets
import torch
import trl
from transformers import AutoModelForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks import lm_inputs


class _Watch(TrainerCallback):
    """Seconds between the beginning of a step and its end: the data loader stands outside."""

    def __init__(self):
        self.seconds = []

    def on_step_begin(self, *_, **__):
        self._start = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.seconds.append(time.perf_counter() - self._start)


def sft(*, folder, batch, length, steps, learning_rate, weight_decay):
    """`train` on the batch of the other contenders, whose rows are the whole data set."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = lm_inputs.token_ids(1, batch, length, model.config.vocab_size)
    data = datasets.Dataset.from_list([{"input_ids": row.tolist()} for row in tokens])
    settings = SFTConfig(
        output_dir=str(Path(folder) / "trl"),
        max_steps=steps,
        per_device_train_batch_size=batch,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        weight_decay=weight_decay,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )

    def run(_):
        watch = _Watch()
        trainer = SFTTrainer(model, settings, train_dataset=data, callbacks=[watch])
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        values = {
            "loss": [entry["loss"] for entry in logs],
            "gradient_norm": [float(entry["grad_norm"]) for entry in logs],
            "version": f"trl {trl.__version__}",
        }
        return sum(watch.seconds) / steps, values

    return run
