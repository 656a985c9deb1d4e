"""Who is compared with whom, and on what; how outputs are held against ours.

A comparison runs its contenders in turn, each in a process of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from benchmarks import lm_inputs
from benchmarks.lm_table import GREEDY, OURS, Measurement
from benchmarks.rounds import MissingPeer, take_turns, worker

# What ours and a peer computed in their first turns -> how they compare, and whether they agree.
Agreement = Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[str, bool]]


_FEW_SHOT = 12  # prompts' lengths of a prompt with examples, all but two of which all rows share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """Sizes of everything; `length` is of texts in SFT and of prompt and action in REINFORCE."""

    hidden_size: int
    num_layers: int
    vocab_size: int
    batch: int
    prompt_length: int
    new_tokens: int
    train_batch: int
    length: int
    action_length: int
    sentences: int
    sentence_batch: int

    def decoder(self) -> dict[str, Any]:
        """config.json of the decoder that is compared."""
        positions = max(_FEW_SHOT * self.prompt_length + self.new_tokens, self.length)
        return lm_inputs.decoder_json(self.hidden_size, self.num_layers, self.vocab_size, positions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """make: "module:function" for `worker`; python: its interpreter."""

    who: str
    make: str
    settings: Mapping[str, Any]
    python: str = sys.executable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The first contender is what the ratios are to; amount: units of work in a turn."""

    section: str
    setting: str
    contenders: tuple[Contender, ...]
    amount: float = 0.0
    unit: str = ""
    agreement: Agreement | None = None


def equal_tokens(ours, theirs):
    """Greedy tokens."""
    same = np.equal(ours["tokens"], theirs["tokens"])
    return f"{same.sum():,} of {same.size:,} tokens equal", bool(same.all())


def close_losses(ours, theirs):
    """Losses and gradient norms of the first steps, to 1e-3 of their size."""
    worst = 0.0
    for name, values in ours.items():
        # A divergence begins at 0: differences count by one where values are smaller.
        difference = np.abs(np.subtract(values, theirs[name]))
        worst = max(worst, float(np.max(difference / np.maximum(1.0, np.abs(theirs[name])))))
    return f"loss and gradient norm within {worst:.1g}", worst <= 1e-3


def close_embeddings(ours, theirs):
    """Coordinates of unit vectors, to 1e-5."""
    worst = float(np.max(np.abs(np.subtract(ours["embeddings"], theirs["embeddings"]))))
    return f"coordinates within {worst:.1g}", worst <= 1e-5


def sampling(shapes: Shapes, folder: str, tunix_python: str) -> Iterator[Comparison]:
    """top_p 0.95 and 1 at temperature 1; greedy for the tokens; greedy behind examples that all rows share."""
    for setting, temperature, top_p, length, shared in (
        ("top_p 0.95", 1.0, 0.95, 1, 0),
        ("top_p 1", 1.0, 1.0, 1, 0),
        (GREEDY, 0.0, 1.0, 1, 0),
        ("shared beginning", 0.0, 1.0, _FEW_SHOT, _FEW_SHOT - 2),
    ):
        settings = {
            "folder": folder,
            "batch": shapes.batch,
            "prompt_length": length * shapes.prompt_length,
            "new_tokens": shapes.new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "shared": shared * shapes.prompt_length,
        }
        with_shape = settings | {"decoder": shapes.decoder()}
        yield Comparison(
            section="sampling",
            setting=setting,
            contenders=(
                Contender(who=OURS, make="benchmarks.lm_ours:sampling", settings=settings),
                Contender(who="PyTorch generate", make="benchmarks.lm_torch:sampling", settings=settings),
                Contender(who="tunix", make="benchmarks.lm_tunix:sampling", settings=with_shape, python=tunix_python),
            ),
            amount=shapes.batch * shapes.new_tokens,
            unit="tokens",
            agreement=None if temperature else equal_tokens,
        )


def sft(shapes: Shapes, folder: str, trl_python: str) -> Iterator[Comparison]:
    """AdamW steps on whole texts."""
    settings = {
        "folder": folder,
        "batch": shapes.train_batch,
        "length": shapes.length,
        "steps": 2,
        "learning_rate": 1e-4,
        "weight_decay": 0.1,
    }
    yield Comparison(
        section="sft",
        setting=f"{shapes.train_batch} x {shapes.length} tokens",
        contenders=(
            Contender(who=OURS, make="benchmarks.lm_ours:sft", settings=settings),
            Contender(who="PyTorch", make="benchmarks.lm_torch:sft", settings=settings),
            Contender(who="TRL SFTTrainer", make="benchmarks.lm_trl:sft", settings=settings, python=trl_python),
        ),
        amount=shapes.train_batch * shapes.length,
        unit="tokens",
        agreement=close_losses,
    )


def reinforce(shapes: Shapes, folder: str) -> Iterator[Comparison]:
    """Steps with the exact KL to the checkpoint."""
    settings = {
        "folder": folder,
        "batch": shapes.train_batch,
        "prompt_length": shapes.length - shapes.action_length,
        "action_length": shapes.action_length,
        "steps": 2,
        "learning_rate": 1e-5,
        "kl_coefficient": 0.1,
    }
    yield Comparison(
        section="reinforce",
        setting="exact KL",
        contenders=(
            Contender(who=OURS, make="benchmarks.lm_ours:reinforce", settings=settings),
            Contender(who="PyTorch", make="benchmarks.lm_torch:reinforce", settings=settings),
        ),
        amount=shapes.train_batch * shapes.length,
        unit="tokens",
        agreement=close_losses,
    )


def sentences(shapes: Shapes, folder: str) -> Iterator[Comparison]:
    """Overviews of films and short sentences."""
    module = "benchmarks.sentence_contenders"
    for kind in ("overviews", "short"):
        settings = {"folder": folder, "kind": kind, "number": shapes.sentences, "batch_size": shapes.sentence_batch}
        peer = "sentence-transformers"
        yield Comparison(
            section="sentences",
            setting=kind,
            contenders=(
                Contender(who=OURS, make=f"{module}:ours", settings=settings),
                Contender(who=peer, make=f"{module}:sentence_transformers", settings=settings),
            ),
            amount=shapes.sentences,
            unit="texts",
            agreement=close_embeddings,
        )


def compilation(shapes: Shapes, depths: list[int]) -> Iterator[Comparison]:
    """A training step with layers scanned and unrolled; the sampler, whose layers are unrolled."""
    module = "benchmarks.lm_programs"
    for depth in depths:
        decoder = dataclasses.replace(shapes, num_layers=depth).decoder()
        training = {"decoder": decoder, "batch": shapes.train_batch, "length": shapes.length}
        drawing = {
            "decoder": decoder,
            "batch": shapes.batch,
            "prompt_length": shapes.prompt_length,
            "new_tokens": shapes.new_tokens,
        }
        yield Comparison(
            section="compile",
            setting=f"{depth} layers",
            contenders=(
                *(
                    Contender(
                        who=f"training step, {name}",
                        make=f"{module}:compile_train_step",
                        settings=training | {"scan_layers": scan_layers},
                    )
                    for name, scan_layers in (("scanned", True), ("unrolled", False))
                ),
                Contender(who="sampler", make=f"{module}:compile_sampler", settings=drawing),
            ),
        )


def run(comparison: Comparison, rounds: int, cores: int) -> tuple[list[Measurement], list[str]]:
    """Measurements of those that are there; lines about those that are not, and about versions."""
    notes, ready = [], []
    with contextlib.ExitStack() as processes:
        started = [
            processes.enter_context(worker(mine.make, mine.settings, cores=cores, python=mine.python))
            for mine in comparison.contenders
        ]
        for contender, process in zip(comparison.contenders, started, strict=True):
            try:
                ready.append((contender, process, process.wait_until_ready()))
            except MissingPeer as error:
                if contender is comparison.contenders[0]:
                    raise
                notes.append(f"{comparison.section}: {contender.who} not measured, {error}")
        first_turns = [process.run() for _, process, _ in ready]
        turns = take_turns([process.run for _, process, _ in ready], [rounds] * len(ready))
    base_values, base_turns = first_turns[0].values, turns[0]
    measured = []
    for (contender, _, memory), first, mine in zip(ready, first_turns, turns, strict=True):
        agreement = agrees = None
        if version := first.values.get("version"):
            notes.append(f"{comparison.section}: {contender.who} is {version}")
        if comparison.agreement is not None and mine is not base_turns:
            agreement, agrees = comparison.agreement(base_values, first.values)
        measured.append(
            Measurement(
                section=comparison.section,
                setting=comparison.setting,
                who=contender.who,
                seconds=tuple(turn.seconds for turn in mine),
                amount=comparison.amount,
                unit=comparison.unit,
                ratios=tuple(turn.seconds / base.seconds for turn, base in zip(mine, base_turns, strict=True)),
                busy_cores=float(np.mean([turn.busy_cores for turn in mine])),
                first_call=first.seconds,
                memory_before=memory,
                memory_peak=mine[-1].peak_mebibytes,
                agreement=agreement or "",
                agrees=agrees,
            )
        )
    return measured, notes
