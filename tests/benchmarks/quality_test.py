"""The parts of the benchmark of quality that need no published model."""

import json

import numpy as np

from benchmarks.quality import Change, KeptFluency, measure, read_changes
from eagle_jax.data.prompts import MOVIE, full_blocks


def test_what_was_scored_is_kept(tmp_path):
    asked = []

    def fluency(texts):
        asked.append(list(texts))
        return np.array([[float(len(text)), -1.0] for text in texts])

    path = tmp_path / "fluency.jsonl"
    np.testing.assert_array_equal(KeptFluency(fluency, path)(["abc", "a", "abc"]), [[3, -1], [1, -1], [3, -1]])
    np.testing.assert_array_equal(KeptFluency(fluency, path)(["ab", "abc"]), [[2, -1], [3, -1]])
    assert asked == [["a", "abc"], ["ab"]]  # the short ones first
    assert dict(map(json.loads, path.read_text().splitlines())) == {"a": [1, -1], "abc": [3, -1], "ab": [2, -1]}


def test_rows_are_those_of_their_own_texts():
    class Counting:
        def parts(self, texts, anchors):
            lengths = np.array([len(text) - len(anchor) for text, anchor in zip(texts, anchors, strict=True)])
            return {"long": np.maximum(lengths, 0.0), "short": np.maximum(-lengths, 0.0)}

    first, second = measure(Counting(), [Change("a", True, ["xyz", "x"], ["x", "x"]), Change("b", False, [""], ["xx"])])
    assert first == {
        "name": "a",
        "broken": True,
        "texts": 2,
        "below": 0.5,
        "mean": -1,
        "highest": 0,
        "lowest": -2,
        "by": "long 1.0",
    }
    assert (second["below"], second["mean"], second["by"]) == (1, -2, "short 2.0")


def test_readings_are_sentences_at_the_ends_of_their_plots():
    films = {"357": "#BEGIN_PLOT Four weddings. #END_PLOT" + "".join(f" #BEGIN_{b} #END_{b}" for b in MOVIE.blocks[1:])}
    yes, no = read_changes(films)
    assert (yes.is_broken, len(yes.texts) + len(no.texts)) == (False, 20)  # of the csv's film 357
    for change in (yes, no):
        assert set(change.anchors) == set(films.values())
        for text in change.texts:
            said = full_blocks(text, MOVIE.blocks)["PLOT"]
            assert said.startswith("Four weddings. ") and len(said) > len("Four weddings. ")
