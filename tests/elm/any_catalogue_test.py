"""ELM on a catalogue in MovieLens' layout, told by a scripted model behind an endpoint."""

import json
import re

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.settings import to_settings
from eagle_jax.data.minilens import grammar
from eagle_jax.data.minilens.world import as_film, draw_films
from eagle_jax.data.prompts import MOVIE, parse_blocks
from eagle_jax.elm.report import report_elm
from eagle_jax.elm.run import ElmRun
from eagle_jax.elm.settings import ElmExperiment
from tests.elm.scripted_teacher import make_tiny
from tests.language_model.remote.scripted_server import ScriptedServer, answer

NUM_FILMS, NUM_USERS = 40, 30
RNG = np.random.default_rng(0)
FILMS = draw_films(NUM_FILMS, RNG)
# In words that the reader knows; the titles are none.
PLOTS = [
    parse_blocks(grammar.tell_film(grammar.draw_telling(as_film(film), "a", RNG)), MOVIE.blocks)["PLOT"]
    for film in FILMS
]
UNREADABLE = 3  # of this film the teacher has no pitch


def write_catalogue(folder):
    """Users like films of some genres and dislike those of others."""
    tastes = RNG.normal(size=(NUM_USERS, FILMS.max() + 1))
    ratings, tags = ["userId,movieId,rating,timestamp"], ["userId,movieId,tag,timestamp"]
    for user, taste in enumerate(tastes):
        for film in RNG.permutation(NUM_FILMS)[:30]:
            stars = np.clip(3 + taste[FILMS[film, 0]] + 0.3 * RNG.normal(), 0.5, 5)
            ratings.append(f"{user + 1},{film + 1},{round(2 * stars) / 2},0")
            if FILMS[film, 0] % 2:
                tags.append(f"{user + 1},{film + 1},odd,0")
    files = {
        "movies.csv": ["movieId,title,genres", *(f"{n + 1},Film {n} (2000),Drama" for n in range(NUM_FILMS))],
        "texts.csv": ["movieId,overview", *(f'{n + 1},"{plot}"' for n, plot in enumerate(PLOTS))],
        "ratings.csv": ratings,
        "tags.csv": tags,
    }
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def script(asked, times):
    """A film's plot from its middle on, a user by the plots of films that were liked."""
    if liked := re.search("#BEGIN_LIKED (.*) #END_LIKED", asked.prompt):
        films = [int(number) for number in re.findall(r"Film (\d+) ", liked[1])]
        return answer(" ".join(" ".join(PLOTS[film].split()[:6]) for film in films))
    plots = re.findall("#BEGIN_PLOT (.*?) #END_PLOT", asked.prompt)
    if plots == [PLOTS[UNREADABLE]] and "producer" in asked.prompt:
        return answer(" ")
    words = " ".join(plots).split()
    return answer(" ".join(words[len(words) // 3 :][:24]))


def experiment(folder, server) -> ElmExperiment:
    config = json.loads(json.dumps(load_config("experiments/configs/elm_movielens.py:minilens/reader").to_dict()))
    config["catalogue"]["movielens"] = {"folder": str(folder), "texts_file": str(folder / "texts.csv")}
    config["split"] |= {"test_fraction": 0.4, "validation_fraction": 0.1, "min_anchor_ratings": 5}
    make_tiny(config, server)
    config["tasks"] = ["summary", "pitch", "similarities", "user_profile"]
    config["examples"] = {"per_movie_task": 6, "profiles": 6, "num_neighbors": 3}
    evaluation = config["evaluation"]
    evaluation["curves"] |= {"num_paths": 2, "alphas": [0.0, 1.0], "steps": [0.0, 1.0], "how": ["linear"]}
    evaluation["curves"] |= {"tags": ["odd"]}
    evaluation["curves"]["cavs"] |= {"min_positives": 2, "num_folds": 2}
    return to_settings(ElmExperiment, config)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    write_catalogue(folder)
    with ScriptedServer(script) as server:
        run = ElmRun(experiment(folder, server), tmp_path_factory.mktemp("run"))
        results = run.run()
        num_requests = len(server.asked)
        again = ElmRun(run.experiment, run.workdir)
        again.run()
        assert len(server.asked) == num_requests  # nothing is asked for twice
    return run, results


def test_every_task_of_the_run_is_scored_without_what_only_a_grammar_can_read(done):
    run, results = done
    table = json.loads((results / "consistency.json").read_text())
    cells = {(row["group"], row["system"]): set(row["cells"]) for row in table["rows"]}
    assert {group for group, _ in cells} >= {"single-movie tasks", "two-movie tasks", *run.experiment.tasks}
    for system in ("elm", "teacher", "nearest", "text_only", "text_only_example"):
        assert cells["summary", system] == {"sc", "bc/ndcg", "bc/spearman"}
        assert cells["similarities", system] == {"sc"}
        assert cells["user_profile", system] == {"bc/ndcg", "bc/spearman"}
    curves = json.loads((results / "curves.json").read_text())
    assert {curve["tag"] for curve in curves} == {None, "odd"}
    assert not any("has_tag" in row["cells"] for curve in curves for row in curve["rows"])


def test_the_teacher_is_shown_texts_and_a_film_that_it_cannot_tell_keeps_its_own(done):
    run, _ = done
    facts = run.stages["space"].read_json("facts.json")
    told = sum(len(part) for part in run.spaces.split.entities.values())
    assert facts["films_that_the_teacher_told"] == {"summary": f"{told} of {told}", "pitch": f"{told - 1} of {told}"}
    rows = [row for part in run.examples.values() for row in part]
    assert rows and ("pitch", [UNREADABLE]) not in [(row["task"], row["items"]) for row in rows]
    summary = next(row for row in rows if row["task"] == "summary")
    assert summary["target"] in PLOTS[summary["items"][0]]
    prompt = run.teacher.prompt({"task": "summary", "items": [5], "user": None})
    assert prompt.text.startswith(f"Summarise the film Film 5 (2000) #BEGIN_PLOT {PLOTS[5]} #END_PLOT for somebody")


def test_the_report_says_what_is_absent_and_why(done):
    run, _ = done
    text = report_elm(run).with_suffix(".md").read_text(encoding="utf-8")
    assert f"films with {NUM_FILMS} films and {NUM_USERS} users." in text.replace(run.spaces.catalogue.name, "films")
    assert "which sees texts, wrote what it learned to say" in text
    assert f"| absent.slots | no grammar reads the texts of {run.spaces.catalogue.name} |" in text
    assert r"| remote.remote/scripted.num\_requests |" in text and "MiniLens" not in text
