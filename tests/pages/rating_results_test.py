"""Raters of known error rates: the rates and Krippendorff's alpha come out within their intervals."""

import sys

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.eagle.evaluation.rater_form import with_generated_at_a
from eagle_jax.pages.rated_run import read_rated_run
from eagle_jax.pages.rating_csv import read_csv, to_csv
from eagle_jax.pages.rating_results import failed_raters, paper_columns, rater_agreement, results
from eagle_jax.pages.rating_store import Form
from tests.pages.made_up_run import EAGLE_ROW, answers_of, open_store, rate_all, write_run

SHARE = 0.7  # of the new texts that are better than their anchors


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_rated_run(write_run(tmp_path_factory.mktemp("run"), num_pairs=200))


def form_of(rater, place, item, label, expected=None):
    return Form(
        rater=rater, kind="person", place=place, item=item, label=label, expected=expected, answers=None, seconds=1.0
    )


def rated_by(errors, num_items=200, seed=0):
    """Every rater rates every text, half of the forms with the new one at B."""
    rng = np.random.default_rng(seed)
    forms = []
    for number, error in enumerate(errors):
        for item in range(num_items):
            form = form_of(f"rater {number}", item, item, "AB"[(item + number) % 2])
            answers = answers_of(form, item % 10 < 10 * SHARE, rng, error)
            forms.append(Form(**{**vars(form), "answers": answers}))
    return forms


def within(value, interval):
    return interval.low <= value <= interval.high


@pytest.mark.parametrize("error", [0.05, 0.2, 0.35])
def test_the_rates_of_raters_who_err_are_recovered(run, error):
    share = SHARE * (1 - error) + (1 - SHARE) * error
    # Of the wrong ones of question 5, the scores 1, 2, 3 and 5 are equally likely.
    distance = (1 - error) * 0.75 + error * (0 + 1 + 2 + 4) / 4 / 4
    expected = {"user_utility": share, "rater_utility": share, "distance_score": distance}
    hits, of_others = dict.fromkeys(expected, 0), 0
    for seed in range(20):
        cells = paper_columns(run, rated_by([error] * 2, num_items=100, seed=seed))
        for name, value in expected.items():
            assert cells[name].by_item.low <= cells[name].mean <= cells[name].by_item.high
            hits[name] += within(value, cells[name].by_item)
        far = 0.5 if error < 0.3 else 0.0
        of_others += within(SHARE * (1 - far) + (1 - SHARE) * far, cells["user_utility"].by_item)
    assert of_others <= 5  # another error rate would not do
    assert min(hits.values()) >= 16  # of 20 intervals of 95 %: fewer happens once in 400


def test_a_line_tells_what_it_rests_on(run):
    (line,) = results(run, rated_by([0.0] * 3, num_items=20))["groups"][0]["rows"]
    assert (line["row"], line["num_forms"], line["num_items"], line["num_raters"]) == (EAGLE_ROW, 60, 20, 3)
    assert line["measured"]["U"] == {"mean": 0.5, "low": 0.4, "high": 0.6}
    assert [round(cell.mean, 3) for cell in line["cells"].values()] == [0.7, 0.7, 0.75, 1.0]


def test_raters_who_differ_make_the_interval_by_rater_wide(run):
    errors = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    cell = paper_columns(run, rated_by(errors))["user_utility"]
    expected = np.mean([SHARE * (1 - error) + (1 - SHARE) * error for error in errors])
    assert within(expected, cell.by_rater) and within(expected, cell.by_item)
    by_rater = paper_columns(run, rated_by([0.25] * 6))["user_utility"].by_rater
    assert cell.by_rater.high - cell.by_rater.low > 2 * (by_rater.high - by_rater.low)


@pytest.mark.parametrize("error", [0.05, 0.2, 0.35])
def test_alpha_of_raters_who_err_is_recovered(run, error):
    forms = rated_by([error] * 4)
    found = rater_agreement(run, 1, forms)
    # Two raters disagree with 2 e (1 - e); of two forms at random with 2 q (1 - q), q of which are for the new text.
    q = SHARE * (1 - error) + (1 - SHARE) * error
    alpha = 1 - 2 * error * (1 - error) / (2 * q * (1 - q))
    assert found.num_items == 200 and found.low <= alpha <= found.high and abs(found.alpha - alpha) < 0.1
    # The places of the texts are no agreement: as they were answered, raters with different orders differ.
    as_answered = [Form(**{**vars(form), "label": "A"}) for form in forms]
    assert rater_agreement(run, 1, as_answered).alpha < 0.1


def test_alpha_by_hand(run):
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", A: two observers, ten units."""
    observers = ("0100000010", "1110010000")
    right = {1: "A", 2: "A", 3: 3, 4: 3, 5: 3, 6: 3, 7: 3, 8: "A", 9: 3, 10: 3, 11: "A"}
    forms = [
        Form(**{**vars(form_of(str(rater), item, item, "A")), "answers": right | {1: "AB"[int(value)]}})
        for rater, values in enumerate(observers)
        for item, value in enumerate(values)
    ]
    assert rater_agreement(run, 1, forms).alpha == pytest.approx(0.095, abs=5e-4)
    assert rater_agreement(run, 2, forms).alpha is None  # all said the same: nothing beyond chance can be told
    assert rater_agreement(run, 1, forms[:10]).alpha is None  # one rater


def test_the_place_of_a_text_is_told_from_its_worth(run):
    told = results(run, rated_by([0.1] * 2))["groups"][0]["first"]
    assert within(0.5, told.by_item)
    lazy = [
        Form(**{**vars(form), "answers": form.answers | dict.fromkeys((1, 2, 8, 11), "A")}) for form in rated_by([0])
    ]
    (people,) = results(run, lazy)["groups"]
    assert people["first"].mean == 1.0
    assert people["rows"][0]["cells"]["user_utility"].mean == 0.5


def test_who_does_not_read_is_left_out_and_named(run):
    forms = rated_by([0.0, 0.0, 0.0])
    expected = {1: "B", 5: 2}
    for rater, answers in (("rater 0", expected), ("rater 1", {1: "B", 5: 3}), ("rater 2", {1: "A", 5: 2})):
        check = form_of(rater, 300, 0, "A", expected)
        forms.append(Form(**{**vars(check), "answers": forms[0].answers | answers}))
    again = form_of("rater 2", 301, 0, "A", expected)
    forms.append(Form(**{**vars(again), "answers": forms[0].answers | expected}))  # passes half
    assert failed_raters(forms) == {"rater 1"}
    found = results(run, forms)
    assert (found["num_raters"], found["num_checks"], found["num_passed"], found["left_out"]) == (3, 4, 2, ["rater 1"])
    (line,) = found["groups"][0]["rows"]
    assert (line["num_raters"], line["num_forms"]) == (2, 400)  # checks are no ratings


def test_nothing_yet_and_a_single_form_have_no_intervals(run):
    (empty,) = results(run, [])["groups"]
    assert empty["rows"] == [] and empty["first"] is None
    (line,) = results(run, rated_by([0.0], num_items=1))["groups"][0]["rows"]
    assert set(line["cells"]) == set(run.form.columns)
    assert line["cells"]["user_utility"].mean == 1.0 and line["cells"]["user_utility"].by_item is None


def test_without_the_package_there_is_no_alpha(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    assert rater_agreement(run, 1, rated_by([0.1] * 2)).alpha is None


def test_what_one_machine_exports_another_takes_over(tmp_path):
    run, store = open_store(write_run(tmp_path / "here", num_pairs=10), raters=2)
    rate_all(store, lambda item: item < 7, [0.1, 0.1])
    file = tmp_path / "ratings.csv"
    file.write_text(to_csv(store.forms(), run.items))
    other_run, other = open_store(write_run(tmp_path / "there", num_pairs=10), raters=2)
    forms = read_csv(file, other_run.items)
    assert other.add(forms) == len(store.forms()) > 20 and other.add(forms) == 0
    assert to_csv(other.forms(), other_run.items) == file.read_text()
    assert results(other_run, other.forms()) == results(run, store.forms())
    first = forms[0]
    turned = Form(**{**vars(first), "answers": with_generated_at_a(first.answers, "B")})
    with pytest.raises(UserError, match="is there with other answers; nothing was taken over"):
        other.add([form_of("new", 0, 0, "A"), turned])
    assert len(other.forms()) == len(forms)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rater,kind", "rater,sort", "expected lines with the columns rater, kind"),
        (",person,", ",dog,", "line 2: kind: expected one of person, model, found 'dog'"),
        (",A,,1.0,", ",C,,1.0,", "line 2: generated_at: expected one of A, B, found 'C'"),
        (",A,,1.0,A,", ",A,,1.0,7,", "line 2: not_a_choice: question 1: expected one of A, B, found '7'"),
        (",A,,1.0,", ",A,,soon,", "line 2: could not convert string to float: 'soon'"),
        (",A,,1.0,", ",A,12 A,1.0,", "line 2: check: there is no question 12"),
        ('"EAGLE', '"ELM', "line 2: row, seed, entity, user: .* is none of the texts"),
        (",A,,1.0,A", ",A,,1.0", "line 2: "),
    ],
)
def test_a_file_that_is_not_ours_is_refused_by_line_and_column(old, new, said, run, tmp_path):
    file = tmp_path / "ratings.csv"
    text = to_csv(rated_by([0.0], num_items=1), run.items)
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=said):
        read_csv(file, run.items)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_csv(tmp_path / "nowhere.csv", run.items)
