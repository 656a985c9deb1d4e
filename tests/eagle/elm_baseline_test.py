"""ELM as EAGLE's baseline: texts of points, balls around neighbors, and a search that is checked."""

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.data.prompts import COMPACT, MOVIE, render_blocks
from eagle_jax.eagle.elm_baseline.decoder import PointDecoder, nearest_distance
from eagle_jax.eagle.elm_baseline.search import PointSearch
from eagle_jax.eagle.elm_baseline.settings import ElmSearchSettings
from eagle_jax.eagle.environment import Start
from eagle_jax.embeddings.scorer import Scorer
from eagle_jax.embeddings.utility import UtilitySettings
from eagle_jax.embeddings.utility_search import UtilitySearchSettings
from eagle_jax.language_model.generation import Generation, SamplingSettings

TEXT = render_blocks({block: "word" for block in MOVIE.blocks})
SEARCH = ElmSearchSettings(
    num_pairs=2,
    num_centers=3,
    radii=(1.0,),
    metrics=("euclidean",),
    ridge=0.01,
    ascent=UtilitySearchSettings(num_starts=1, num_steps=5, last_step=0.1),
)


class Scripted:
    """An ELM that answers each point with a text of its own."""

    def __init__(self, answers):
        self.answers, self.points = answers, None

    def generate(self, prompts, sampling, seed):
        self.points = [prompt.embeddings for prompt in prompts]
        return [
            Generation(text=text, token_ids=None, log_probs=None, stop_reason=reason) for text, reason in self.answers
        ]


def test_a_malformed_text_is_its_anchor_with_the_reason():
    opening, closing = "#BEGIN_PLOT ", " #END_REASONS_TO_DISLIKE"
    good = TEXT.removeprefix(opening).removesuffix(closing)
    elm = Scripted([(good, "stop"), (good, "length"), ("a plot without an end", "stop")])
    sampling = SamplingSettings(temperature=0.0, top_k=0, top_p=1.0, max_new_tokens=8)
    decoder = PointDecoder(elm, COMPACT, MOVIE, sampling)
    points = np.arange(6.0).reshape(3, 2)
    steps = decoder.steps(points, ["a", "b", "c"], 0)
    assert [(step.description, step.malformed) for step in steps] == [
        (TEXT, None),
        ("b", "decoder:length"),
        ("c", "decoder:missing_block"),
    ]
    assert all(step.action is None for step in steps)
    for ((kind, vector),), point in zip(elm.points, points, strict=True):
        assert kind == "behavioral" and np.array_equal(vector, point)
    assert decoder.prompt.text == "describe the film <user>. #BEGIN_PLOT"
    assert f"{opening}{decoder.completion(TEXT)}" == TEXT
    assert decoder.completion(TEXT).endswith(decoder.prompt.stop[0])


@pytest.fixture
def search():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(20, 2)).astype(np.float32)
    users = rng.normal(size=(3, 2)).astype(np.float32)
    scorer = Scorer(None, users, embeddings, UtilitySettings(neighbor_weight=0.3, num_neighbors=2))
    return PointSearch(embeddings, np.arange(5, 20), scorer, SEARCH)


def starts(*pairs):
    return [Start(entity, user, "text", "profile") for entity, user in pairs]


def test_centers_are_the_nearest_known_entities_and_never_the_anchor(search):
    given = starts((0, 0), (7, 1))
    for start, centers in zip(given, search.centers(given), strict=True):
        distances = {
            i: np.linalg.norm(search.embeddings[i] - search.embeddings[start.entity_index])
            for i in range(5, 20)
            if i != start.entity_index
        }
        assert list(centers) == sorted(distances, key=distances.get)[:3]


def test_radii_are_multiples_of_the_median_nearest_distance(search):
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    assert nearest_distance(points) == 1.0  # 1, 1 and 3
    given = starts((0, 0), (1, 2))
    centers = search.centers(given)
    metrics = search.metrics("euclidean", centers, None, 0)
    found = search.find(given, centers, metrics, 2.0, 0)
    moved = found.points - search.embeddings[centers[range(2), found.centers]]
    assert np.linalg.norm(moved, axis=1).max() <= 2 * search.unit * (1 + 1e-5)


def test_a_search_that_float64_contradicts_is_an_error(search):
    given = starts((0, 0), (1, 2))
    centers = search.centers(given)
    flat = np.broadcast_to(np.diag([1.0, 1e-14]), (2, 3, 2, 2))
    with pytest.raises(UserError, match="radius 1.0: U in float32 is off .* raise search.ridge"):
        search.find(given, centers, flat, 1.0, 0)
