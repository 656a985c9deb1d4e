"""What a REAL experiment is about: prompts, what a supervised start learns, and responses."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.base.errors import UserError
from eagle_jax.base.metrics import progress
from eagle_jax.base.seeds import derive_seed
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.minilens.requests import (
    ProfileRequest,
    draw_requests,
    malformed_responses,
    supervised_examples,
    true_utility,
)
from eagle_jax.data.preferences.dialogues import PLAIN_LAYOUT
from eagle_jax.data.preferences.examples import PreferenceExample
from eagle_jax.data.preferences.files import read_preferences
from eagle_jax.data.prompts import Prompt
from eagle_jax.language_model.checkpoints.tokenizer import Tokenizer
from eagle_jax.language_model.generation import TextGenerator
from eagle_jax.real.conversations import chat_layout, end_of_prompt, end_of_turn
from eagle_jax.real.settings import GenerationSettings, MiniLensRequests, PreferenceFiles
from eagle_jax.real.training.preference import distinct_places, with_ending
from eagle_jax.real.training.step import PreferenceSettings
from eagle_jax.reports.markdown import fact

TWO_PARTS = ("train", "test")
_NUM_BAD_ROWS_TOLD = 20


@dataclasses.dataclass(frozen=True)
class RealTask:
    """What policies are asked, by part, and what is known of right answers.

    ending: what ends a response; None: the tokenizer's end token.
    requests: MiniLens' requests by their prompt's text, from which utilities follow.
    examples: of files, with their own responses.
    """

    prompts: dict[str, list[Prompt]]
    ending: str | None
    requests: dict[str, ProfileRequest] = dataclasses.field(default_factory=dict)
    examples: dict[str, list[PreferenceExample]] = dataclasses.field(default_factory=dict)
    facts: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def has_utility(self) -> bool:
        return bool(self.requests)

    def utility(self, prompt: str, response: str) -> float:
        """The true utility of any response to one of the prompts."""
        return true_utility(self.requests[prompt], response)

    def is_malformed(self, prompt: str, response: str) -> bool:
        """Whether a response is none: no film in MiniLens, an empty text elsewhere."""
        if self.has_utility:
            return bool(malformed_responses([self.requests[prompt]], [response]))
        return not response.strip()


def minilens_task(settings: MiniLensRequests, seed: int) -> RealTask:
    """Users who ask for a film; train and test ask under disjoint seeds."""
    requests = {
        part: draw_requests(count, derive_seed(seed, place))
        for place, (part, count) in enumerate(zip(TWO_PARTS, (settings.num_train, settings.num_test), strict=True))
    }
    everyone = [request for part in TWO_PARTS for request in requests[part]]
    return RealTask(
        prompts={part: [request.prompt for request in own] for part, own in requests.items()},
        ending=f" {everyone[0].prompt.stop[0]}",
        requests={request.prompt.text: request for request in everyone},
    )


def files_task(settings: PreferenceFiles, tokenizer: Tokenizer, max_prompt_tokens: int, seed: int) -> RealTask:
    """Prompts of files, without their beginnings where they have more tokens than a policy is to
    read; the same prompt is never in both parts.

    Conversations are dialogues in the plain layout, which all can read; the chat template of a
    policy that has one renders their turns. Rows that it refuses are bad ones.
    """
    by_prompt: dict[str, list[PreferenceExample]] = {}
    facts, num_cut, num_too_long = [], 0, 0
    is_chat = tokenizer.chat_template is not None
    layout = chat_layout(tokenizer.chat_template) if is_chat else PLAIN_LAYOUT
    for path in settings.paths:
        examples, report = read_preferences(Path(path), settings.file_format, layout=layout)
        for example in examples:
            prompt = end_of_prompt(tokenizer, example.prompt, max_prompt_tokens)
            if prompt is None:
                num_too_long += 1
                continue
            num_cut += prompt != example.prompt
            by_prompt.setdefault(prompt, []).append(dataclasses.replace(example, prompt=prompt))
        reasons = Counter(row.reason.partition(":")[0] for row in report.bad_rows)
        facts += [
            fact(f"{report.file}: rows", report.num_rows, "without blank lines"),
            fact(f"{report.file}: prompts", report.num_examples, "with responses to choose from"),
            *(fact(f"{report.file}: left out", count, reason) for reason, count in sorted(reasons.items())),
            *(
                fact(f"{report.file}: bad row", str(row), "one of the first")
                for row in report.bad_rows[:_NUM_BAD_ROWS_TOLD]
            ),
        ]
    cut = f"prompts with more than {max_prompt_tokens} tokens, which lose their beginning"
    facts.append(fact("shortened prompts", num_cut, cut))
    if num_too_long:
        cut = f"prompts of which {max_prompt_tokens} tokens hold no word beside the chat template"
        facts.append(fact("left out", num_too_long, cut))
    if not by_prompt:
        raise UserError(
            f"training.max_prompt_tokens is {max_prompt_tokens}, in which no prompt of "
            f"{', '.join(settings.paths)} says anything beside the chat template: raise it"
        )
    order = np.random.default_rng(derive_seed(seed, 0)).permutation(len(by_prompt))[: settings.max_prompts]
    num_test = max(1, round(settings.test_fraction * len(order)))
    of_prompt = list(by_prompt.values())
    parts = {"train": order[num_test:], "test": order[:num_test]}
    examples = {part: [example for i in rows for example in of_prompt[i]] for part, rows in parts.items()}
    return RealTask(
        prompts={part: [Prompt(example.prompt, (), "") for example in own] for part, own in examples.items()},
        ending=end_of_turn(tokenizer) if is_chat else None,
        examples=examples,
        facts=facts,
    )


def supervised_pairs(
    task: RealTask, settings: MiniLensRequests | None, tokenizer: Tokenizer, limit: int, seed: int
) -> list[tuple[str, str]]:
    """Prompts and completions that the supervised start learns: films that users would watch, or
    the responses that files prefer; of these, those with at most `limit` tokens."""
    if settings is not None:
        examples = supervised_examples(
            settings.num_supervised,
            seed,
            num_films=settings.num_films,
            strength=settings.film_strength,
            dialect=settings.dialect,
        )
        return [(example.prompt.text, example.completion) for example in examples]
    ending = task.ending or tokenizer.eos_token or ""
    pairs = [(example.prompt, with_ending(_preferred(example), ending)) for example in task.examples["train"]]
    return [pair for pair in pairs if sum(map(len, tokenizer.encode_response(*pair))) <= limit]


def _preferred(example: PreferenceExample) -> str:
    if example.label is not None:
        return example.responses[example.label[0]]
    scores = example.scores or (0.0,) * len(example.responses)
    return example.responses[int(np.argmax(scores))]


def run_responses_stage(
    stage: StageFolder,
    task: RealTask,
    generator: TextGenerator | None,
    settings: GenerationSettings | None,
    seed: int,
    tokenizer: Tokenizer,
    training: PreferenceSettings,
) -> dict[str, list[PreferenceExample]]:
    """Responses to every prompt, by part, from the files or from `generator`, in chunks of prompts.

    Scores of MiniLens' responses are their true utilities. Empty responses, those that are another
    one when `training` has cut them, and those of prompts whose responses are all the same are left
    out and counted. Writes <part>.jsonl, facts.json.
    """
    if not stage.is_complete():
        facts: Counter[str] = Counter()
        written = None if settings is None else _write_responses(stage, task, generator, settings, seed)
        for part in TWO_PARTS:
            examples = list(_examples(task, part, written[part], facts)) if written else task.examples[part]
            places = distinct_places(tokenizer, examples, task.ending, training)
            stage.write_jsonl(f"{part}.jsonl", map(dataclasses.asdict, _distinct(examples, places, facts)))
        stage.write_json("facts.json", dict(facts))
        stage.finish()
    return {part: list(map(_read_example, stage.read_jsonl(f"{part}.jsonl"))) for part in TWO_PARTS}


def _write_responses(
    stage: StageFolder, task: RealTask, generator: TextGenerator, settings: GenerationSettings, seed: int
) -> dict[str, list[list[dict[str, Any]]]]:
    """K responses ({"text", "stop_reason"}) to every prompt, by part."""
    size = settings.prompts_per_chunk
    counts = {"train": settings.num_train_responses, "test": settings.num_test_responses}
    chunks = [
        (part, derive_seed(seed, place, number), task.prompts[part][first : first + size])
        for place, part in enumerate(TWO_PARTS)
        for number, first in enumerate(range(0, len(task.prompts[part]), size))
    ]

    def generate(part: str, chunk_seed: int, prompts: Sequence[Prompt]) -> list[list[dict[str, Any]]]:
        repeated = [prompt for prompt in prompts for _ in range(counts[part])]
        made = generator.generate(repeated, settings.sampling, chunk_seed)
        rows = [{"text": generation.text, "stop_reason": generation.stop_reason} for generation in made]
        return [rows[i : i + counts[part]] for i in range(0, len(rows), counts[part])]

    written = {part: [] for part in TWO_PARTS}
    for index, chunk in enumerate(progress(chunks, len(chunks), "responses", "chunk")):
        written[chunk[0]] += stage.chunk(index, functools.partial(generate, *chunk))
    return written


def _examples(
    task: RealTask, part: str, written: Sequence[Sequence[dict[str, Any]]], facts: Counter[str]
) -> Iterator[PreferenceExample]:
    for prompt, rows in zip(task.prompts[part], written, strict=True):
        facts["responses"] += len(rows)
        facts["cut short"] += sum(row["stop_reason"] == "length" for row in rows)
        texts = [row["text"].strip() for row in rows if row["text"].strip()]
        facts["empty"] += len(rows) - len(texts)
        distinct = tuple(dict.fromkeys(texts))
        facts["repeated"] += len(texts) - len(distinct)
        if len(distinct) < 2:
            facts["prompts left out: fewer than two different responses"] += 1
            continue
        scores = None
        if task.has_utility:
            scores = tuple(task.utility(prompt.text, text) for text in distinct)
            facts["malformed"] += sum(task.is_malformed(prompt.text, text) for text in distinct)
        yield PreferenceExample(prompt=prompt.text, responses=distinct, scores=scores, label=None)


def _distinct(
    examples: Sequence[PreferenceExample], places: Sequence[list[int]], facts: Counter[str]
) -> Iterator[PreferenceExample]:
    for example, kept in zip(examples, places, strict=True):
        num_left_out = len(example.responses) - len(kept)
        if num_left_out:
            facts["the same as another after cutting"] += num_left_out
        if len(kept) < 2:
            facts["prompts left out: all responses the same after cutting"] += 1
            continue
        if num_left_out:
            label, scores = example.label, example.scores
            example = dataclasses.replace(
                example,
                responses=tuple(example.responses[k] for k in kept),
                scores=scores and tuple(scores[k] for k in kept),
                label=tuple(map(kept.index, label)) if label and set(label) <= set(kept) else None,
            )
        yield example


def _read_example(row: dict[str, Any]) -> PreferenceExample:
    tuples = {name: None if row[name] is None else tuple(row[name]) for name in ("responses", "scores", "label")}
    return PreferenceExample(**{**row, **tuples})
