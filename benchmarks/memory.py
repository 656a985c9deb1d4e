"""What a training step takes in memory and time with a large vocabulary: this build against an earlier one.

    git worktree add ../earlier d862271
    bash launch/run.sh benchmarks.memory --earlier=../earlier --out=runs/memory_benchmark

Memory is what XLA plans for programs compiled for this machine, in Gemma 3 270M's shape with layers
computed again (`remat`): bytes of temporaries, beside which there are the arguments. No array is
made. Times are of the same steps on smaller batches without remat, random weights and tokens, one
process for each build; they take turns, so that a ratio is of neighbours in time. Processor seconds
stand beside wall time: they tell more where the machine is not quiet. About 40 minutes on two cores
and 16 GB of memory; --only=plans takes 10.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import rounds
from benchmarks.memory_table import Plan, Timing, page

_PACKAGES = ("jax", "jaxlib")
_VOCABULARIES = (49_152, 262_144)

_OUT = flags.DEFINE_string("out", "runs/memory_benchmark", "folder for the table")
_EARLIER = flags.DEFINE_string("earlier", None, "checkout of the earlier build; none: ours alone")
_ONLY = flags.DEFINE_list("only", "plans,times", "which parts run")
_PROGRAMS = flags.DEFINE_list("programs", "sft,reinforce,dpo", "which steps")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "turns of every build", lower_bound=1)
_CORES = flags.DEFINE_integer("cores", 2, "processor cores that each may use", lower_bound=1)
_LAYERS = flags.DEFINE_integer("layers", 18, "of the decoder", lower_bound=1)
_SHRINK = flags.DEFINE_integer("shrink", 1, "divides batches, lengths and vocabularies", lower_bound=1)


def decoder_json(vocab_size: int) -> dict[str, Any]:
    """config.json in Gemma 3 270M's shape: every sixth layer looks at all, the others at 512 tokens."""
    layers = _LAYERS.value
    return {
        "model_type": "gemma3_text",
        "vocab_size": vocab_size // _SHRINK.value,
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "max_position_embeddings": 32_768,
        "sliding_window": 512,
        "layer_types": ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(layers)],
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    }


def shape(program: str, batch: int, prompt: int, length: int) -> dict[str, Any]:
    """Of a step: rows (pairs of them in DPO) of a prompt and what is learned after it."""
    size = _SHRINK.value
    return {"program": program, "batch": batch, "prompt": prompt // size, "length": length // size}


def asked_for(*steps: tuple) -> list[tuple]:
    """Those that the flag names."""
    return [step for step in steps if step[0] in _PROGRAMS.value]


def measure_plans(builds: dict[str, str | None]) -> list[Plan]:
    """Bytes by XLA's accounting, of every build."""
    plans = []
    for program, *sizes in asked_for(("sft", 8, 0, 1024), ("reinforce", 32, 512, 64), ("dpo", 8, 512, 512)):
        settings = {"decoder": decoder_json(_VOCABULARIES[-1]), "remat": True, **shape(program, *sizes)}
        for who, checkout in builds.items():
            with _worker("planned", settings, checkout) as worker:
                worker.wait_until_ready()
                turn = worker.run()
            plans.append(Plan(program=program, sizes=tuple(sizes), who=who, seconds=turn.seconds, **turn.values))
            print(plans[-1], flush=True)
    return plans


def measure_times(builds: dict[str, str | None]) -> list[Timing]:
    """Seconds of a step; the ratios are ours of the same round to the build's."""
    timings = []
    for program, *sizes in asked_for(("sft", 4, 0, 512), ("reinforce", 4, 512, 64)):
        for vocab_size in _VOCABULARIES:
            settings = {"decoder": decoder_json(vocab_size), "remat": False, **shape(program, *sizes)}
            with contextlib.ExitStack() as stack:
                workers = [stack.enter_context(_worker("timed", settings, checkout)) for checkout in builds.values()]
                for worker in workers:
                    worker.wait_until_ready()
                    worker.run()  # compiles and warms up
                turns = rounds.take_turns([worker.run for worker in workers], [_ROUNDS.value] * len(workers))
            for who, mine in zip(builds, turns, strict=True):
                timings.append(_timing(program, tuple(sizes), vocab_size, who, mine, turns[0]))
                print(timings[-1], flush=True)
    return timings


def _timing(program, sizes, vocab_size, who, turns, ours) -> Timing:
    busy = [turn.values["processor_seconds"] for turn in turns]
    losses = [np.array([turn.values["loss"] for turn in each]) for each in (turns, ours)]
    return Timing(
        program=program,
        sizes=sizes,
        vocab_size=vocab_size,
        who=who,
        seconds=[turn.seconds for turn in turns],
        processor_seconds=busy,
        ratios=[own.seconds / turn.seconds for own, turn in zip(ours, turns, strict=True)],
        processor_ratios=[own.values["processor_seconds"] / each for own, each in zip(ours, busy, strict=True)],
        loss_difference=float(np.max(np.abs(losses[0] - losses[1]))),
    )


def _worker(contender: str, settings: dict[str, Any], checkout: str | None):
    name = f"benchmarks.memory_contenders:{contender}"
    return rounds.worker(name, settings | {"checkout": checkout}, cores=_CORES.value)


def main(_) -> None:
    made_by, notes = rounds.machine(_PACKAGES), rounds.load_warning()
    builds = {"this build": None}
    if _EARLIER.value:
        builds["earlier build"] = str(Path(_EARLIER.value).resolve())
    plans = measure_plans(builds) if "plans" in _ONLY.value else []
    timings = measure_times(builds) if "times" in _ONLY.value else []
    written = page(made_by, notes, plans, timings)
    record = {
        "machine": made_by,
        "notes": notes,
        "plans": [plan._asdict() for plan in plans],
        "times": [timing._asdict() for timing in timings],
    }
    rounds.write_results(Path(_OUT.value), written, record)
    print(written)


if __name__ == "__main__":
    app.run(main)
