"""Prompts, responses and labels of a REAL experiment, with scripted writers and raters."""

import dataclasses
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.preferences.examples import PreferenceExample, PreferencePair
from eagle_jax.data.prompts import COMPACT, Prompt
from eagle_jax.language_model.checkpoints.tokenizer import load_tokenizer
from eagle_jax.language_model.checkpoints.word_tokenizer import write_word_tokenizer
from eagle_jax.language_model.generation import SamplingSettings, ScriptedGenerator
from eagle_jax.real.labels import ANNOTATORS, Labeller, LabelSettings, ResponsePair, training_pairs
from eagle_jax.real.settings import GenerationSettings, MiniLensRequests, PreferenceFiles
from eagle_jax.real.task import RealTask, files_task, minilens_task, run_responses_stage, supervised_pairs
from eagle_jax.stages.models import load_model

SAMPLING = SamplingSettings(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=8)
REQUESTS = MiniLensRequests(num_train=3, num_test=2, num_supervised=5, num_films=4, film_strength=1.0, dialect="a")


def example(prompt: str, *responses: str, scores=None) -> PreferenceExample:
    return PreferenceExample(prompt=prompt, responses=responses, scores=scores, label=None)


def task_of(prompts: list[str]) -> RealTask:
    asked = [Prompt(prompt, (), "") for prompt in prompts]
    return RealTask({"train": asked, "test": asked[:1]}, None)


def responses(tmp_path, task: RealTask, texts: dict[str, list[str]], count: int):
    """The stage with a writer whose k-th answer to a prompt is the k-th of its texts."""
    asked: Counter[str] = Counter()

    def write(prompt, rng):
        asked[prompt.text] += 1
        return texts[prompt.text][(asked[prompt.text] - 1) % count]

    counts = {"num_train_responses": count, "num_test_responses": count, "prompts_per_chunk": 2}
    settings = GenerationSettings(generator="remote/x", sampling=SAMPLING, **counts)
    stage = StageFolder(tmp_path / "responses", {})
    made = run_responses_stage(stage, task, ScriptedGenerator(write), settings, 0, *cut(tmp_path))
    again = run_responses_stage(stage, task, None, settings, 0, None, None)  # nobody is asked
    assert made == again
    return made, stage.read_json("facts.json")


def cut(tmp_path):
    """A tokenizer of words and letters, and what training keeps of a prompt and a response."""
    write_word_tokenizer([*"abcdqrsuvxyz", "one", "two", "three", "same"], tmp_path / "tokenizer")
    training = SimpleNamespace(max_prompt_tokens=3, max_tokens=5)
    return load_tokenizer(tmp_path / "tokenizer"), training


def test_empty_and_repeated_responses_are_left_out_and_counted(tmp_path):
    texts = {"one": ["a", "", "b", "a"], "two": ["same", "same ", "same", "same"], "three": ["x", "y", "z", " "]}
    made, facts = responses(tmp_path, task_of(list(texts)), texts, 4)
    assert made["train"] == [example("one", "a", "b"), example("three", "x", "y", "z")]
    assert made["test"] == [example("one", "a", "b")]
    assert facts == {
        "responses": 16,
        "cut short": 0,
        "empty": 3,
        "repeated": 5,
        "prompts left out: fewer than two different responses": 1,
    }


def test_responses_that_are_the_same_when_they_are_cut_are_left_out_and_counted(tmp_path):
    """Of 5 tokens the prompt has 1 or 2; END is written behind a response, where there is room."""
    whole = [
        dataclasses.replace(example("q", "a b c d x", "a b c d y"), label=(1, 0)),
        dataclasses.replace(example("q r", "a b c d", "a b x"), label=(1, 0)),
        example("q r", "a b c", "y", "a b c d", scores=(1.0, 3.0, 2.0)),
        example("q r", "a b", "a b [END]", "a b c"),  # the end token is not doubled
    ]
    task = dataclasses.replace(task_of([]), examples={"train": whole, "test": whole[1:2]})
    stage = StageFolder(tmp_path / "responses", {})
    made = run_responses_stage(stage, task, None, None, 0, *cut(tmp_path))
    assert made["test"] == whole[1:2]
    assert made["train"] == [whole[1], example("q r", "a b c", "y", scores=(1.0, 3.0)), example("q r", "a b", "a b c")]
    assert stage.read_json("facts.json") == {
        "the same as another after cutting": 3,
        "prompts left out: all responses the same after cutting": 1,
    }


def test_minilens_scores_are_true_utilities_and_parts_are_disjoint():
    task = minilens_task(REQUESTS, 0)
    assert [len(task.prompts[part]) for part in ("train", "test")] == [3, 2]
    assert not {p.text for p in task.prompts["train"]} & {p.text for p in task.prompts["test"]}
    prompt = task.prompts["train"][0].text
    assert task.is_malformed(prompt, "no film")
    assert np.isfinite(task.utility(prompt, "no film"))


def test_the_same_prompt_is_never_in_both_parts_and_long_ones_keep_their_end(tmp_path):
    path = tmp_path / "own.csv"
    rows = [f"{'film ' * 30}user {n % 10},good {n},bad {n},1" for n in range(40)]
    path.write_text("prompt,response_1,response_2,label\n" + "\n".join(rows) + "\n")
    tokenizer = load_model("minilens/policy").tokenizer
    settings = PreferenceFiles(paths=(str(path),), file_format="table", test_fraction=0.3, max_prompts=None)
    task = files_task(settings, tokenizer, 20, 0)
    prompts = {part: {p.text for p in task.prompts[part]} for part in ("train", "test")}
    assert len(prompts["test"]) == 3 and len(prompts["train"]) == 7
    assert not prompts["test"] & prompts["train"]
    assert sum(len(examples) for examples in task.examples.values()) == 40
    for text in prompts["train"] | prompts["test"]:
        assert len(tokenizer.encode(text)) == 20
        assert f"{'film ' * 30}user".endswith(text.rsplit(" ", 1)[0])
    facts = {fact["name"]: fact["value"] for fact in task.facts}
    assert facts["shortened prompts"] == 40

    pairs = supervised_pairs(task, None, tokenizer, 100, 0)
    assert len(pairs) == len(task.examples["train"])
    assert all(target.startswith("good") and target.endswith("[END]") for _, target in pairs)
    assert supervised_pairs(task, None, tokenizer, 20, 0) == []


def labeller(examples, source: str, generator=None) -> Labeller:
    settings = LabelSettings(source=source, temperature=0.5)
    return Labeller(examples, settings, generator, SAMPLING, COMPACT, 7)


EXAMPLES = [example("q", "bad", "good", scores=(0.0, 1.0)), example("r", "x", "y", scores=(2.0, 2.0))]
PAIRS = [ResponsePair(0, 0, 1, 0.5), ResponsePair(1, 0, 1, 0.25)]


def test_labels_of_the_data_are_its_scores_and_ties_give_none():
    pairs = labeller(EXAMPLES, "data").label(PAIRS)
    assert [pair.label for pair in pairs] == [(1, 0), None]
    assert [pair.true_gap for pair in pairs] == [1.0, 0.0]
    assert training_pairs(EXAMPLES, pairs) == [PreferencePair(prompt="q", chosen="good", rejected="bad")]


def test_a_simulated_annotator_repeats_itself_and_is_judged():
    annotator = labeller([example(f"q{n}", "bad", "good", scores=(0.0, 0.5)) for n in range(400)], "simulated")
    asked = [ResponsePair(n, 0, 1, 0.0) for n in range(400)]
    pairs = annotator.label(asked)
    assert pairs == [annotator.label([pair])[0] for pair in asked]
    errors = np.array([pair.is_error for pair in pairs])
    assert [pair.label == (0, 1) for pair in pairs] == errors.tolist()
    assert errors.mean() == pytest.approx(1 / (1 + np.e), abs=0.07)  # 3 standard errors of 400
    with pytest.raises(UserError, match="needs scores"):
        labeller([example("q", "a", "b")], "simulated").label(PAIRS[:1])


def test_a_rater_that_contradicts_itself_gives_no_label_and_is_told():
    def prefers_good(prompt, rng):  # else whatever stands first
        first, second = (prompt.text.index(name) for name in ("TEXT_A", "TEXT_B"))
        return "a" if "bad" not in prompt.text or first < prompt.text.index("good") < second else "b"

    rater = labeller(EXAMPLES, "rater", ScriptedGenerator(prefers_good))
    pairs = rater.label(PAIRS)
    assert [pair.label for pair in pairs] == [(1, 0), None]
    facts = {fact["name"]: fact["value"] for fact in rater.facts()}
    assert facts == {"pairs rated": 2, "pairs with a label": 1}
    # The data's labels are right by definition; a rater's can be wrong, where the truth is known.
    assert [pair.is_error for pair in pairs] == [False, None]
    assert [pair.is_error for pair in rater.label(PAIRS, ANNOTATORS["data"])] == [None, None]
    assert len(rater.facts()) == len(facts)  # nobody was asked
