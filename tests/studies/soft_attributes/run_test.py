"""Tags and orderings as arrays, the cells and the report, on made-up films.

The made-up concept is the first coordinate of every film: raters order by it, users tag by it.
"""

import dataclasses
import re

import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import UserError
from eagle_jax.base.settings import to_settings
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.catalogue import Catalogue, Entity, RatingTable
from eagle_jax.data.prompts import MOVIE
from eagle_jax.data.soft_attributes import Ordering
from eagle_jax.studies.soft_attributes import run as soft_attributes
from eagle_jax.studies.soft_attributes import scores
from eagle_jax.studies.soft_attributes.data import gather, normalized
from eagle_jax.studies.soft_attributes.report import SoftAttributesReport, write_attributes_report

FILMS = 60
ATTRIBUTES = ("dull", "scary")


@pytest.fixture(scope="module")
def embeddings():
    return np.random.default_rng(0).normal(size=(FILMS, 4))


@pytest.fixture(scope="module")
def catalogue(embeddings):
    """All films are rated, more often the later ones; the last ten have no tag."""
    concept = embeddings[:, 0]
    names = np.where(concept > 0.3, "Creepy!", "plain").tolist()
    tags = [(film % 3, film, names[film]) for film in range(FILMS - 10)]
    items = np.repeat(np.arange(FILMS), 1 + np.arange(FILMS) // 20)
    return Catalogue(
        name="made up",
        entities=tuple(Entity(entity_id=str(film), title=f"{film}", description="") for film in range(FILMS)),
        ratings=RatingTable(
            user_names=("a", "b", "c"),
            item_names=tuple(map(str, range(FILMS))),
            user_index=np.zeros(len(items), int),
            item_index=items,
            rating=np.ones(len(items)),
        ),
        tags=tuple(tags),
        entity_format=MOVIE,
    )


@pytest.fixture(scope="module")
def orderings(embeddings):
    """Scary is the concept; dull is drawn at random."""
    rng = np.random.default_rng(1)
    made = []
    for rater in range(20):
        for attribute in ATTRIBUTES:
            films = rng.permutation(FILMS)[:11]
            if attribute == "scary":
                films = films[np.argsort(embeddings[films, 0])]
            less, about, more = (tuple(map(str, part)) for part in np.split(films, [4, 7]))
            made.append(Ordering(rater=str(rater), attribute=attribute, less=less, about=about, more=more))
    return made


@pytest.fixture(scope="module")
def data(catalogue, orderings):
    return gather(catalogue, orderings, {"scary": ("creepy",)}, lower_per_positive=5, seed=0)


@pytest.fixture(scope="module")
def settings():
    config = load_config("experiments/configs/soft_attributes.py").scores
    made = to_settings(scores.ScoreSettings, config)
    return dataclasses.replace(
        made,
        cav=dataclasses.replace(made.cav, penalties=(0.03,), num_folds=2),
        reference_penalties=(0.03, 0.3),
        bootstrap=dataclasses.replace(made.bootstrap, num_resamples=100),
    )


@pytest.fixture(scope="module")
def cells(embeddings, data, settings, tmp_path_factory):
    """What the stage of the scores writes."""
    stage = StageFolder(tmp_path_factory.mktemp("run") / "gammas", {"scores": settings})
    soft_attributes._score(settings, {"made up": embeddings[data.items]}, data, stage)
    assert stage.is_complete()
    return stage.read_json("cells.json"), stage.read_json("refused.json")


def test_tags_become_labels_and_pairs_within_users(embeddings, catalogue, data):
    assert data.num_tagged == FILMS - 10 and data.num_unrated == 0
    has = data.has_tag["scary"]
    np.testing.assert_array_equal(has, embeddings[: FILMS - 10, 0] > 0.3)
    assert not data.has_tag["dull"].any() and data.num_named["scary"] == 0
    pairs = data.tag_pairs["scary"]
    assert (pairs.higher % 3 == pairs.lower % 3).all()  # the user
    assert has[pairs.higher].all() and not has[pairs.lower].any()
    totals = np.bincount(pairs.higher, pairs.weight, FILMS - 10)
    np.testing.assert_allclose(totals, has)
    assert np.bincount(pairs.higher).max() == 5


def test_orderings_become_pairs_of_raters(data):
    # 4 less, 3 about, 4 more: 12 + 16 + 12 strict opinions of each of 20 raters.
    assert len(data.opinions["scary"].rater) == 20 * 40
    assert set(data.opinions["scary"].rater) == set(range(20))


def test_tag_names_are_compared_normalized_and_must_be_of_an_attribute(catalogue, orderings):
    assert normalized(" Slow-Paced, R:Rated_2 ") == "slow paced r rated 2"
    with pytest.raises(UserError, match="'funny' is no soft attribute"):
        gather(catalogue, orderings, {"funny": ("fun",)}, lower_per_positive=5, seed=0)


def gammas(cells, attribute):
    return {cell["method"]: cell["gamma"] for cell in cells if cell["attribute"] == attribute}


def test_cavs_find_the_concept_and_only_where_there_is_one(cells):
    found, refused = cells
    scary, dull = (gammas(found, attribute) for attribute in ("scary", "dull"))
    assert min(scary[name] for name in (scores.LINEAR, scores.RANKING)) > 0.7
    assert min(scary[name] for name in (scores.NEW_FILMS, scores.NEW_RATERS)) > 0.9
    assert scary[scores.OTHER_RATERS] > 0.6
    for name in (scores.POPULARITY, scores.AT_RANDOM):
        assert abs(scary[name]) < 0.4
    assert scores.LINEAR not in dull and max(dull.values()) < 0.3
    for method in (scores.LINEAR, scores.RANKING):
        assert refused["made up"][method]["dull"].startswith("0 rows have it")


def test_report_says_the_numbers(tmp_path, data, settings, cells):
    found, refused = cells
    second = [cell | {"attribute": "grim"} for cell in found if cell["attribute"] == "scary"]
    counts = {"num_pairs": 800, "num_named": 0, "num_tag_pairs": 9}
    rows = [
        {"attribute": name, **counts, "num_tagged": tagged, "tags": ["creepy | <b>"]}
        for name, tagged in (("dull", 0), ("grim", 20), ("scary", 20))
    ]
    report = SoftAttributesReport(
        title="Made up & <small>",
        embeddings={"made up": 4},
        attributes=rows,
        cells=found + second,
        refused=refused,
        facts=["nothing left out"],
        min_positives=6,
        settings={"seed": 0},
        provenance={"python": "3"},
        **dataclasses.asdict(settings.bootstrap),
    )
    write_attributes_report(tmp_path, report)
    text = (tmp_path / "report.md").read_text()
    assert (tmp_path / "report_means.png").stat().st_size > 1000
    assert report.common == ["grim", "scary"]
    gamma = next(c["gamma"] for c in found if (c["method"], c["attribute"]) == (scores.LINEAR, "scary"))
    line = next(line for line in text.splitlines() if line.startswith("| linear CAV, made up"))
    assert f"{gamma:.3f} [{gamma:.3f}, {gamma:.3f}]" in line  # twice the same attribute
    assert "linear CAV, made up against random direction, made up: above" in text
    assert "2 of 3 attributes have 6 or more tagged films" in text
    assert r"creepy \| &lt;b> |" in text and not re.search(r"\bnan\b", text)
    rows = [line for line in text.splitlines() if re.match(r"\| (dull|grim|scary) \|", line)]
    assert len(rows) == 3 and len({line.count("| ") for line in rows}) == 1
