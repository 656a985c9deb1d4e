"""What a REAL experiment is about: prompts, what a supervised start learns, and responses."""

from __future__ import annotations

import dataclasses
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
from eagle_jax.language_model.generation import Generation, TextGenerator
from eagle_jax.real.conversations import chat_layout, end_of_prompt, end_of_turn
from eagle_jax.real.settings import GenerationSettings, MiniLensRequests, PreferenceFiles
from eagle_jax.real.training.preference import distinct_places, with_ending
from eagle_jax.real.training.step import PreferenceSettings
from eagle_jax.reports.markdown import fact

TWO_PARTS = ("train", "test")
_NUM_BAD_ROWS_TOLD = 20
_TEST_SEED, _TRAIN_SEED = 1, 0


@dataclasses.dataclass(frozen=True)
class RealTask:
    """What policies are asked, by part, and what is known of right answers.

    ending: what ends a response; None: the tokenizer's end token.
    requests: MiniLens' requests by their prompt's text, from which utilities follow.
    examples: of files, with their own responses.
    """

    prompts: dict[str, list[Prompt]]
    ending: str | None
    requests: dict[str, ProfileRequest]
    examples: dict[str, list[PreferenceExample]]
    facts: list[dict[str, Any]]

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
        part: draw_requests(count, derive_seed(seed, own_seed))
        for part, count, own_seed in (
            ("train", settings.num_train, _TRAIN_SEED),
            ("test", settings.num_test, _TEST_SEED),
        )
    }
    everyone = [request for part in TWO_PARTS for request in requests[part]]
    return RealTask(
        prompts={part: [request.prompt for request in own] for part, own in requests.items()},
        ending=f" {everyone[0].prompt.stop[0]}",
        requests={request.prompt.text: request for request in everyone},
        examples={},
        facts=[],
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
            own = dataclasses.replace(example, prompt=prompt)
            by_prompt.setdefault(prompt, []).append(own)
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
    rng = np.random.default_rng(derive_seed(seed, 0))
    order = rng.permutation(len(by_prompt))[: settings.max_prompts]
    num_test = max(1, round(settings.test_fraction * len(order)))
    texts = list(by_prompt)
    parts = {"test": order[:num_test], "train": order[num_test:]}
    examples = {part: [e for i in parts[part] for e in by_prompt[texts[i]]] for part in TWO_PARTS}
    return RealTask(
        prompts={part: [Prompt(example.prompt, (), "") for example in own] for part, own in examples.items()},
        ending=end_of_turn(tokenizer) if is_chat else None,
        requests={},
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
        for place, part in enumerate(TWO_PARTS):
            if settings is None:
                examples = task.examples[part]
            else:
                written = _write_responses(stage, task, part, generator, settings, seed, place)
                examples = list(_examples(task, part, written, facts))
            places = distinct_places(tokenizer, examples, task.ending, training)
            examples = list(_distinct(examples, places, facts))
            stage.write_jsonl(f"{part}.jsonl", map(dataclasses.asdict, examples))
        stage.write_json("facts.json", dict(facts))
        stage.finish()
    return {part: list(map(_read_example, stage.read_jsonl(f"{part}.jsonl"))) for part in TWO_PARTS}


def _write_responses(
    stage: StageFolder,
    task: RealTask,
    part: str,
    generator: TextGenerator,
    settings: GenerationSettings,
    seed: int,
    place: int,
) -> list[list[dict[str, Any]]]:
    """K responses ({"text", "stop_reason"}) to every prompt of a part."""
    prompts = task.prompts[part]
    count = settings.num_train_responses if part == "train" else settings.num_test_responses
    firsts = range(0, len(prompts), settings.prompts_per_chunk)
    written = []
    for number, first in enumerate(progress(firsts, len(firsts), f"responses, {part}", "chunk")):
        chunk = prompts[first : first + settings.prompts_per_chunk]

        def generate(chunk=chunk, number=number) -> list[list[dict[str, Any]]]:
            repeated = [prompt for prompt in chunk for _ in range(count)]
            own_seed = derive_seed(seed, place, number)
            made = generator.generate(repeated, settings.sampling, own_seed)
            rows = [_response(generation) for generation in made]
            return [rows[i : i + count] for i in range(0, len(rows), count)]

        # Parts of the stage are numbered through, test behind train.
        offset = 0 if place == 0 else -(-len(task.prompts["train"]) // settings.prompts_per_chunk)
        written += stage.chunk(offset + number, generate)
    return written


def _response(generation: Generation) -> dict[str, Any]:
    return {"text": generation.text, "stop_reason": generation.stop_reason}


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
