"""What a model is here, whether it agrees with `transformers`, how fast it writes, and which roles it can play.

The roles are EAGLE's, on the catalogue, with the prompts and the sampling of one of its configs.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from eagle_jax.base.command_line import FlagParser, load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.data.prompts import (
    PROMPT_BOOKS,
    EntityFormat,
    MalformedText,
    Prompt,
    PromptBook,
    generic_action_prompt,
    policy_prompt,
    profile_prompt,
    rater_prompt,
    render_block,
)
from eagle_jax.data.sources import load_catalogue
from eagle_jax.data.splits import split_catalogue
from eagle_jax.eagle.evaluation.rater_form import parse_rater_answers
from eagle_jax.eagle.profile_stage import rated_titles
from eagle_jax.eagle.roles.rewrite_formats import BLOCKS_ONCE, read_rewriting, rewrite_prompt
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.language_model.checkpoints.hf_checkpoints import LanguageModel
from eagle_jax.language_model.decoder.transformer import forward
from eagle_jax.language_model.generation import Generation, SamplingSettings, TextGenerator, parse_generation
from eagle_jax.language_model.prompt_tokens import PromptTooLongError
from eagle_jax.language_model.sampling.local import LocalGenerator
from eagle_jax.stages.models import load_model, model_path

_NUM_PROMPTS, _NUM_COMPARED, _NUM_TIMED = 10, 128, 64  # prompts of a role; tokens compared; tokens of a timed text
_CONFIG = "experiments/configs/eagle_minilens.py"


def check_model(arguments: Sequence[str]) -> None:
    """Reads the flags and prints what there is to know, as it becomes known."""
    parser = FlagParser(prog="eagle-jax check-model", description=__doc__)
    parser.add_argument("model", help="a folder in Hugging Face's layout, a GGUF file, or minilens/<name>")
    parser.add_argument("--config", default=_CONFIG, metavar="FILE", help=f"of experiments.eagle (default: {_CONFIG})")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="(default: float32)")
    flags = parser.parse_args(arguments)
    experiment = to_settings(EagleExperiment, load_config(flags.config), flags.config)
    model = load_model(flags.model, flags.dtype)
    for name, told in described(model).items():
        _print(name, told)
    generator = LocalGenerator(model, _NUM_PROMPTS, experiment.models.length_multiple)
    material = draw_material(experiment)
    prompts = material.profile_prompts()
    _print("logits", compared(model, model_path(flags.model), prompts[0].text))
    _print("speed", measured(generator, prompts))
    print(f"well-formed texts, with the prompts and the catalogue of {flags.config}:")
    for role, answers in play(generator, experiment, material):
        faults = Counter(answer.reason for answer in answers if isinstance(answer, MalformedText))
        told = f"{len(answers) - faults.total()} of {len(answers)}"
        _print(f"  {role}", told + "".join(f", {count} {reason}" for reason, count in faults.most_common()))


def _print(name: str, told: str) -> None:
    print(f"{name:24} {told}", flush=True)


def described(model: LanguageModel) -> dict[str, str]:
    """What was understood of the files, by what it is about."""
    config, tokenizer = model.config, model.tokenizer
    windows = Counter(window for window in config.layer_windows if window is not None)
    rope = f"{config.rope.rope_type}, theta {config.rope.theta:g}"
    if windows and config.local_rope != config.rope:
        rope += f"; {config.local_rope.rope_type}, theta {config.local_rope.theta:g} in layers with a window"
    if config.unrotated_layers:
        rope += f"; none in layers {', '.join(map(str, config.unrotated_layers))}"
    if 0 < config.rotary_dim < config.head_dim:
        rope += f"; of {config.rotary_dim} of a head's {config.head_dim} coordinates"
    size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    ends = ", ".join(repr(tokenizer.backend.id_to_token(token_id)) for token_id in tokenizer.eos_ids)
    template = tokenizer.chat_template
    return {
        "model": model.name,
        "family": f"{config.family.model_type} ({config.family.architecture})",
        "parameters": f"{size / 1e6:.1f} million, {jax.tree.leaves(model.params)[0].dtype}",
        "layers": f"{config.num_layers} of width {config.hidden_size}, {config.intermediate_size} {config.activation}",
        "heads": f"{config.num_heads} for queries, {config.num_kv_heads} for keys and values, {config.head_dim} wide",
        "positions": f"{config.max_position_embeddings}, "
        + ("learned" if config.family.learned_positions else f"rotary: {rope}"),
        "windows": ", ".join(f"{tokens} tokens in {count} layers" for tokens, count in windows.items()) or "none",
        "unembedding": "tied to the embedding" if config.tie_word_embeddings else "of its own",
        "tokenizer": f"{tokenizer.vocab_size} tokens for {config.vocab_size} embeddings, "
        f"beginning {tokenizer.bos_token!r}, padding {tokenizer.pad_token!r}",
        "end tokens": ends or "none: texts end at the prompts' own markers only",
        "chat template": "none: prompts are continued"
        if template is None
        else "yes, and it knows thoughts"
        if "<think>" in template.templates["default"]
        else "yes",
    }


def compared(model: LanguageModel, path: Path, text: str) -> str:
    """How far logits are from those of `transformers`, relative to their spread."""
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError:
        return "not compared: torch is not installed"
    if not path.is_dir():
        return "not compared: not a folder of `transformers`"
    tokens = np.array([model.tokenizer.encode_prompt(text)[:_NUM_COMPARED]])
    ours = np.asarray(forward(model.config, model.params, tokens, np.ones_like(tokens, bool)).logits)
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(tokens)).logits.numpy()
    difference = np.abs(ours - expected).max() / np.ptp(expected)
    return f"differ from those of `transformers` by {difference:.1e} of their spread on {tokens.size} tokens"


def measured(generator: LocalGenerator, prompts: Sequence[Prompt]) -> str:
    """Tokens a second of the second batch (the first one compiles), and memory so far."""
    sampling = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=_NUM_TIMED)
    # Whatever ends a text here would end the measurement too.
    endless = [Prompt(prompt.text, (), prompt.opening, prompt.may_be_cut) for prompt in prompts]
    try:
        generator.generate(endless, sampling, 0)
    except PromptTooLongError as error:
        return f"not measured: {error}"
    start = time.perf_counter()
    made = generator.generate(endless, sampling, 0)
    seconds = time.perf_counter() - start
    rate = sum(len(generation.token_ids) for generation in made) / seconds
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        memory, where = statistics["peak_bytes_in_use"], "of the device"
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        memory, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of the process"
    return f"{rate:.0f} tokens/s in a batch of {len(prompts)}; {memory / 2**30:.2f} GiB {where} at most"


class PromptMaterial(NamedTuple):
    """What the prompts are made of: so many items and users, in the same order at every call."""

    book: PromptBook
    entity_format: EntityFormat
    descriptions: list[str]
    titles: list[tuple[list[str], list[str]]]  # that a user rated high, and low

    def profile_prompts(self) -> list[Prompt]:
        return [profile_prompt(self.book, liked, disliked) for liked, disliked in self.titles]


def draw_material(experiment: EagleExperiment) -> PromptMaterial:
    """Items and training users of the experiment's catalogue."""
    catalogue, _ = load_catalogue(experiment.catalogue)
    split = split_catalogue(catalogue, experiment.split)
    rng = np.random.default_rng(experiment.seed)
    items = rng.permutation(len(catalogue.entities))[:_NUM_PROMPTS]
    users = rng.permutation(split.users["train"])[:_NUM_PROMPTS].tolist()
    per_side = experiment.profiles.titles_per_side
    return PromptMaterial(
        PROMPT_BOOKS[experiment.prompts],
        catalogue.entity_format,
        [catalogue.entities[item].description for item in items],
        [rated_titles(catalogue, split.train, user, per_side) for user in users],
    )


def play(
    generator: TextGenerator, experiment: EagleExperiment, material: PromptMaterial
) -> Iterator[tuple[str, list[str | MalformedText]]]:
    """What the model writes in each role, or why that cannot be read.

    A role goes on from the model's own texts; where they are malformed, from a plain text in their place.
    """
    book, fmt, texts = material.book, material.entity_format, material.descriptions

    def ask(
        prompts: Sequence[Prompt], sampling: SamplingSettings, read: Callable[[int, Generation], str]
    ) -> list[str | MalformedText]:
        answers: list[str | MalformedText] = []
        try:
            generations = generator.generate(prompts, sampling, experiment.seed)
        except PromptTooLongError as error:
            return [MalformedText("prompt_too_long", str(error))] * len(prompts)
        for row, generation in enumerate(generations):
            try:
                answers.append(read(row, generation))
            except MalformedText as error:
                answers.append(error)
        return answers

    def block(name: str) -> Callable[[int, Generation], str]:
        return lambda row, generation: parse_generation(generation, [name])[name]

    def usable(answers: Sequence[str | MalformedText], plain: Sequence[str]) -> list[str]:
        pairs = zip(answers, plain, strict=True)
        return [other if isinstance(answer, MalformedText) else answer for answer, other in pairs]

    written = ask(material.profile_prompts(), experiment.profiles.sampling, block("USER_PROFILE"))
    yield "generator, profiles", written
    profiles = usable(written, ["; ".join(liked) for liked, _ in material.titles])
    kinds = [fmt.action_categories[row % len(fmt.action_categories)] for row in range(len(texts))]
    asked = [generic_action_prompt(book, fmt, text, kind) for text, kind in zip(texts, kinds, strict=True)]
    proposed = ask(asked, experiment.candidates.sampling, block("ACTION"))
    yield "generator, actions", proposed
    actions = usable(proposed, kinds)
    form = (experiment.rewriting or BLOCKS_ONCE).format
    pairs = list(zip(texts, actions, strict=True))
    asked = [rewrite_prompt(form, book, fmt, *pair) for pair in pairs]
    read = lambda row, generation: read_rewriting(form, fmt, *pairs[row], generation)  # noqa: E731
    yield "environment", ask(asked, experiment.environment, read)
    asked = [policy_prompt(book, fmt, text, profile) for text, profile in zip(texts, profiles, strict=False)]
    yield "policy, untrained", ask(asked, experiment.agent.training.policy, block("ACTION"))
    if experiment.evaluation.rater is not None:
        pairs = zip(texts, [*texts[1:], texts[0]], profiles, strict=False)
        forms = ask([rater_prompt(book, *pair) for pair in pairs], experiment.evaluation.rater, block("ANSWERS"))
        yield "rater", [_rated(form) for form in forms]


def _rated(form: str | MalformedText) -> str | MalformedText:
    """A form whose eleven answers can be read."""
    try:
        return form if isinstance(form, MalformedText) else str(parse_rater_answers(render_block("ANSWERS", form)))
    except MalformedText as error:
        return error
