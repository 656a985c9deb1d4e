"""Stage 4 of ELM: the reader gets adapters and learns the teacher's answers, in two stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from eagle_jax.base.metrics import read_metrics
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.task_examples import Row
from eagle_jax.data.tasks import BEHAVIORAL, SEMANTIC, elm_prompt, find_task
from eagle_jax.elm.examples import entities_of
from eagle_jax.elm.model.adapter import input_statistics
from eagle_jax.elm.model.embedding_lm import EmbeddingLM, new_embedding_lm
from eagle_jax.elm.model.files import load_embedding_lm, save_embedding_lm
from eagle_jax.elm.model.prompts import EmbeddedBatch, EmbeddedPrompt
from eagle_jax.elm.model.training import STAGES, train_elm
from eagle_jax.elm.settings import ElmModelSettings, ElmStageSettings
from eagle_jax.elm.space import Spaces
from eagle_jax.stages.models import load_model

_MODEL = "model"


def elm_prompts(rows: Sequence[Row], spaces: Spaces) -> list[EmbeddedPrompt]:
    """Each example as the ELM reads it: embeddings of its films or of its user."""
    tables = {SEMANTIC: spaces.semantic, BEHAVIORAL: spaces.users}
    prompts = []
    for row in rows:
        task = find_task(row["task"])
        pairs = zip(task.slots, entities_of(row), strict=True)
        vectors = tuple((kind, np.float32(tables[kind][index])) for kind, index in pairs)
        prompts.append(EmbeddedPrompt(elm_prompt(spaces.book, task), vectors))
    return prompts


def embedded_prompt(book: str, task: str, kind: str, vector: np.ndarray) -> EmbeddedPrompt:
    """A task about a point that need not be in the catalogue."""
    prompt = elm_prompt(book, find_task(task))
    return EmbeddedPrompt(prompt, ((kind, np.asarray(vector, np.float32)),))


def run_elm_stage(
    stage: StageFolder,
    rows: Sequence[Row],
    spaces: Spaces,
    models: ElmModelSettings,
    settings: ElmStageSettings,
    seed: int,
) -> EmbeddingLM:
    """The trained ELM, in model/ as `load_embedding_lm` reads it; writes training.json."""
    base = load_model(models.reader)
    if not stage.is_complete():
        stage.begin()
        split = spaces.split
        elm = new_embedding_lm(
            base,
            {
                SEMANTIC: input_statistics(spaces.semantic[split.entities["train"]]),
                BEHAVIORAL: input_statistics(spaces.users[split.users["train"]]),
            },
            jax.random.key(derive_seed(seed, 1)),
            hidden_width=settings.adapter_hidden_width,
            batch_size=models.batch_size,
            length_multiple=models.length_multiple,
            slot_multiple=models.slot_multiple,
        )
        elm = train_elm(
            elm,
            batch_drawer(elm, rows, spaces, settings.tokens_per_batch, seed),
            settings.training,
            jax.random.key(derive_seed(seed, 2)),
            checkpoint_folder=stage.path / "checkpoints",
            digest=stage.digest,
            metrics_folder=stage.path / "metrics",
            description="ELM",
        )
        save_embedding_lm(elm, stage.path / _MODEL)
        stage.write_json("training.json", _curve(stage.path / "metrics"))
        stage.finish()
    return load_embedding_lm(stage.path / _MODEL, base)


def _curve(folder: Path) -> list[dict[str, float | str]]:
    files = {name: folder / name / "metrics.jsonl" for name in STAGES}
    return [{"stage": name, **row} for name, file in files.items() if file.exists() for row in read_metrics(file)]


def batch_drawer(
    elm: EmbeddingLM, rows: Sequence[Row], spaces: Spaces, tokens_per_batch: int, seed: int
) -> Callable[[int], tuple[EmbeddedBatch, ...]]:
    """step -> a batch of examples of like length, about `tokens_per_batch` tokens of them.

    Lengths share few shapes; each is drawn as often as it has tokens, so that every example counts
    the same in the long run.
    """
    prompts = elm_prompts(rows, spaces)
    completions = [p.prompt.closed(row["target"]) for row, p in zip(rows, prompts, strict=True)]
    encode = elm.model.tokenizer.encode_prompt
    lengths = np.array([len(encode(p.prompt.text)) + len(encode(c)) for p, c in zip(prompts, completions, strict=True)])
    padded = -(-lengths // elm.length_multiple) * elm.length_multiple
    sizes = np.unique(padded)
    buckets = [np.flatnonzero(padded == size) for size in sizes]
    share = np.array([len(bucket) * size for bucket, size in zip(buckets, sizes, strict=True)])

    def draw(step: int) -> tuple[EmbeddedBatch, ...]:
        rng = np.random.default_rng([seed, step])
        number = int(rng.choice(len(buckets), p=share / share.sum()))
        count = max(1, tokens_per_batch // int(sizes[number]))
        chosen = rng.choice(buckets[number], count)
        return (elm.encode([prompts[i] for i in chosen], [completions[i] for i in chosen]),)

    return draw
