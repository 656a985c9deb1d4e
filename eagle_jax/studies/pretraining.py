"""Pretraining MiniLens-LM: one small decoder per role, its quality measured on unseen films."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import jax
import numpy as np

from eagle_jax.base.provenance import provenance
from eagle_jax.base.settings import setting, settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.minilens import corpus, grammar, task_corpus
from eagle_jax.data.minilens.task_teacher import share_recovered
from eagle_jax.data.prompts import MalformedText, parse_completion, render_blocks
from eagle_jax.data.tasks import read_teacher_prompt
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel, save_language_model
from eagle_jax.language_model.checkpoints.hf_config import decoder_config_from_hf
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer, load_tokenizer
from eagle_jax.language_model.checkpoints.word_tokenizer import write_word_tokenizer
from eagle_jax.language_model.decoder.transformer import init_params
from eagle_jax.language_model.generation import SamplingSettings, TextGenerator
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.learning.supervised import Batch, NextTokenSettings, encode_pairs, train_next_token
from eagle_jax.stages.run import Run
from eagle_jax.stages.supervised import training_records


@settings
class PretrainingSettings:
    """One role: its dialect, size, share of each task, and training."""

    dialect: str = setting("Which of the grammar's two ways to tell a film it learns.")
    seed: int = setting("Of parameters and examples.", at_least=0)
    hidden_size: int = setting("Width of the residual stream.", at_least=1)
    intermediate_size: int = setting("Hidden units of a feed-forward layer.", at_least=1)
    num_layers: int = setting("Blocks of attention and feed-forward layer.", at_least=1)
    num_heads: int = setting("Of attention; they divide hidden_size.", at_least=1)
    max_position_embeddings: int = setting("The longest text.", at_least=1, unit="tokens")
    initializer_range: float = setting("Standard deviation of fresh parameters.", above=0)
    task_shares: dict[str, float] = setting("Of each task's batches.", at_least=0)
    tokens_per_batch: int = setting("Of an optimiser step.", at_least=1, unit="tokens")
    prompt_loss_weight: float = setting("Of the prompt's tokens; an answer's: 1.", at_least=0)
    training: NextTokenSettings
    quality_examples: int = setting("Fresh ones, for the measured quality.", at_least=1)


# Tokens of the longest example of each task, rounded up: one compilation per task.
_TASK_LENGTHS = {
    "rewrite": 128,
    "describe": 64,
    "profile": 288,
    "generic_action": 80,
    "personalised_action": 128,
    "rater": 192,
    "film_title": 80,
    "film_text": 120,
    "film_pair": 96,
    "user": 176,
}
_QUALITY_SEED = 10_000_019  # far from the training seeds, which are step numbers


def pretrain(name: str, settings: PretrainingSettings, workdir: Path) -> dict[str, float]:
    """Trains the role `name` into `<workdir>/<name>/model` (Hugging Face layout and card.json)."""
    with Run(workdir, experiment="pretrain").stage(name, **dataclasses.asdict(settings)) as stage:
        if not stage.is_complete():
            _train(stage, settings)
        return stage.read_json("model/card.json")["quality"]


def _train(stage: StageFolder, settings: PretrainingSettings) -> None:
    stage.begin()
    folder = stage.path / "model"
    write_word_tokenizer(_vocabulary(settings), folder)
    tokenizer = load_tokenizer(folder)
    config = decoder_config_from_hf(
        {
            "model_type": "qwen3",
            "vocab_size": tokenizer.vocab_size,
            "hidden_size": settings.hidden_size,
            "intermediate_size": settings.intermediate_size,
            "num_hidden_layers": settings.num_layers,
            "num_attention_heads": settings.num_heads,
            "head_dim": settings.hidden_size // settings.num_heads,
            "max_position_embeddings": settings.max_position_embeddings,
            "initializer_range": settings.initializer_range,
            "tie_word_embeddings": True,
        }
    )

    def draw_batches(step: int) -> tuple[Batch, ...]:
        return tuple(_draw_batch(tokenizer, settings, task, step) for task in sorted(settings.task_shares))

    params = train_next_token(
        config,
        init_params(config, jax.random.key(settings.seed)),
        "full",
        draw_batches,
        settings.training,
        dataclasses.replace(training_records(stage), description=f"pretraining {stage.name}"),
    )
    model = LanguageModel(name=stage.name, config=config, params=params, tokenizer=tokenizer)
    save_language_model(model, folder, "bfloat16")
    quality = measure_quality(LocalGenerator(model, batch_size=128, length_multiple=32), settings, _QUALITY_SEED)
    stage.write_json(
        "model/card.json", {"settings": dataclasses.asdict(settings), "quality": quality, "made_by": provenance()}
    )
    stage.finish()


def _vocabulary(settings: PretrainingSettings) -> list[str]:
    """ELM's tasks have words of their own."""
    reads = set(settings.task_shares) & set(task_corpus.READER_KINDS)
    return task_corpus.reader_vocabulary() if reads else corpus.vocabulary()


def _draw_examples(settings: PretrainingSettings, task: str, count: int, seed: int) -> list[corpus.Example]:
    if task in task_corpus.READER_KINDS:
        return task_corpus.reader_examples(task, count, seed)
    return corpus.draw_examples(task, settings.dialect, count, seed)


def _draw_batch(tokenizer: Tokenizer, settings: PretrainingSettings, task: str, step: int) -> Batch:
    """Fresh examples of one task that take its share of the tokens of a step."""
    tokens = settings.tokens_per_batch * settings.task_shares[task]
    count = max(1, round(tokens / _TASK_LENGTHS[task]))
    examples = _draw_examples(settings, task, count, step)
    pairs = [(example.prompt.text, example.completion) for example in examples]
    return encode_pairs(tokenizer, pairs, settings.prompt_loss_weight, _TASK_LENGTHS[task])


def measure_quality(generator: TextGenerator, settings: PretrainingSettings, examples_seed: int) -> dict[str, float]:
    """Shares on fresh films at temperature 0.5, for the tasks that the model was trained on."""
    sampling = SamplingSettings(temperature=0.5, top_k=0, top_p=1.0, max_new_tokens=80)
    quality: dict[str, float] = {}
    measures = {
        "rewrite": _rewrite_quality,
        "profile": _profile_quality,
        "generic_action": _action_quality,
        "personalised_action": _action_quality,
        "rater": _rater_quality,
    } | dict.fromkeys(task_corpus.READER_KINDS, _answer_quality)
    for task, measure in measures.items():
        if settings.task_shares.get(task):
            examples = _draw_examples(settings, task, settings.quality_examples, examples_seed)
            prompts = [example.prompt for example in examples]
            texts = [g.text for g in generator.generate(prompts, sampling, settings.seed)]
            values = measure(examples, texts)
            quality |= {f"{task}/{name}": float(value) for name, value in values.items()}
    return quality


def _rewrite_quality(examples: list[corpus.Example], texts: list[str]) -> dict[str, float]:
    """Instruction followed, other slots kept, well-formed: what an environment has to do."""
    oracle = grammar.GrammarOracle()
    outcomes = []
    for example, text in zip(examples, texts, strict=True):
        before, action = example.prompt.text.split("#BEGIN_ACTION")
        before = before[before.index("#BEGIN_PLOT") :]
        try:
            after = render_blocks(parse_completion(example.prompt, text, tuple(grammar.BLOCK_SLOTS)))
        except MalformedText:
            after = ""
        outcomes.append(oracle.judge_edit(before, action, after))
    return {
        "followed": np.mean([outcome.followed for outcome in outcomes]),
        "kept": np.mean([outcome.kept for outcome in outcomes]),
        "all_kept": np.mean([outcome.kept == 1.0 for outcome in outcomes]),
        "well_formed": np.mean([outcome.well_formed for outcome in outcomes]),
    }


def _profile_quality(examples: list[corpus.Example], texts: list[str]) -> dict[str, float]:
    """Share of the true likes and dislikes that the written profile names."""
    found = Counter()
    for example, text in zip(examples, texts, strict=True):
        truth = corpus.read_profile(example.completion)
        written = corpus.read_profile(text)
        for kind, true, ours in zip(("likes", "dislikes"), truth, written, strict=True):
            found[kind] += len(true & ours) / len(true) / len(examples)
    return dict(found)


def _action_quality(examples: list[corpus.Example], texts: list[str]) -> dict[str, float]:
    """One readable change of the category that was asked for."""
    right = []
    for example, text in zip(examples, texts, strict=True):
        slots = [slots for category, slots in grammar.CATEGORY_SLOTS.items() if category in example.prompt.text][0]
        named = grammar.mentions(text)
        right.append(len(named) == 1 and named[0][0] in slots)
    return {"one_change_of_the_category": np.mean(right)}


def _rater_quality(examples: list[corpus.Example], texts: list[str]) -> dict[str, float]:
    """Agreement with the teacher on the three questions that are reported (1, 5, 8)."""
    agree = Counter()
    for example, text in zip(examples, texts, strict=True):
        truth, ours = example.completion.split(), text.split()
        for question, position in ((1, 1), (5, 9), (8, 15)):
            same = len(ours) > position and ours[position] == truth[position]
            agree[f"question_{question}"] += same / len(examples)
    return dict(agree)


def _answer_quality(examples: list[corpus.Example], texts: list[str]) -> dict[str, float]:
    """Of each of ELM's tasks: the share of what the answer should name that it names rightly."""
    shares: dict[str, list[float]] = {}
    for example, text in zip(examples, texts, strict=True):
        task, _ = read_teacher_prompt("compact", example.prompt)
        shares.setdefault(task.name, []).append(share_recovered(example.prompt, text))
    return {name: np.mean(values) for name, values in sorted(shares.items())}
