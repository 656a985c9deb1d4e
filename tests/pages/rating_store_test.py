"""Who is given what, and that no answer is lost."""

import os
import stat
import threading
from collections import Counter

import numpy as np
import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.pages.rating_store import CHECK_EVERY, RatingStore, is_code
from tests.pages.made_up_run import open_store, rate_all, write_run

CHECKS = [{1: ("A", "B")}] * 4


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Five raters, four for each of twelve texts: (the forms that were answered)."""
    _, store = open_store(write_run(tmp_path_factory.mktemp("run"), num_pairs=12), raters=4)
    rate_all(store, lambda item: True, [0.0] * 5)
    return store.forms()


def test_each_text_has_its_raters_and_both_orders_equally_often(rated):
    of_items = [form for form in rated if form.expected is None]
    assert Counter(Counter(form.item for form in of_items).values()) == {4: 12}
    assert Counter((form.item, form.label) for form in of_items) == {
        (item, label): 2 for item in range(12) for label in "AB"
    }
    for rater in {form.rater for form in of_items}:
        labels = [form.label for form in of_items if form.rater == rater]
        assert abs(labels.count("A") - labels.count("B")) <= 4
        items = [form.item for form in of_items if form.rater == rater]
        assert len(set(items)) == len(items)


def test_one_form_of_each_block_is_a_check(rated):
    for rater in {form.rater for form in rated}:
        forms = [form for form in rated if form.rater == rater]
        assert [form.place for form in forms] == list(range(len(forms)))
        whole = [form for form in forms if form.place < CHECK_EVERY]
        assert sum(form.expected is not None for form in whole) == 1
    checks = [form for form in rated if form.expected is not None]
    assert len({form.place for form in checks}) > 1 and len({str(form.expected) for form in checks}) > 1


def test_the_seed_says_who_gets_what(tmp_path):
    def order(name, seed):
        _, store = open_store(write_run(tmp_path / name, num_pairs=8), seed=seed)
        rate_all(store, lambda item: True, [0.0, 0.0])
        return [(form.place, form.item, form.label, form.expected) for form in store.forms()]

    assert order("first", 3) == order("again", 3) != order("other", 4)


def test_a_form_stays_the_same_until_it_is_answered_once(tmp_path):
    _, store = open_store(write_run(tmp_path))
    code = store.new_rater()
    form = store.current_form(code)
    assert store.current_form(code) == form
    answers = {number: "A" if number in (1, 2, 8, 11) else 3 for number in range(1, 12)}
    assert not store.answer(code, form.place + 1, answers)  # never given
    assert store.answer(code, form.place, answers)
    assert not store.answer(code, form.place, answers | {1: "B"})
    (kept,) = store.forms()
    assert kept.answers == answers and kept.seconds >= 0
    assert store.current_form(code).place == form.place + 1
    with pytest.raises(KeyError):
        store.current_form("0000-0000-0000")


def test_who_leaves_does_not_hold_up_the_others(tmp_path):
    _, store = open_store(write_run(tmp_path), raters=1)
    store.current_form(store.new_rater())  # and goes
    rate_all(store, lambda item: True, [0.0])
    assert len({form.item for form in store.forms() if form.expected is None}) == 4


def test_raters_at_once_lose_nothing(tmp_path):
    workdir = write_run(tmp_path, num_pairs=6)
    _, store = open_store(workdir, raters=4)
    threads = [threading.Thread(target=rate_all, args=(store, bool, [0.0], n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    forms = [form for form in open_store(workdir, raters=4)[1].forms() if form.expected is None]
    assert Counter(form.item for form in forms) == dict.fromkeys(range(6), 4)
    assert {label: sum(form.label == label for form in forms) for label in "AB"} == {"A": 12, "B": 12}


def test_the_file_is_its_owners_alone(tmp_path):
    before = os.umask(0)
    try:
        open_store(write_run(tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "ratings.sqlite").stat().st_mode) == 0o600


def test_another_setting_another_program_and_a_link_are_refused(tmp_path):
    file = tmp_path / "ratings.sqlite"
    RatingStore(file, {"--seed": 0}, CHECKS, 3, 0)
    with pytest.raises(UserError, match="was begun with --seed 0, now 1"):
        RatingStore(file, {"--seed": 1}, CHECKS, 3, 1)
    assert RatingStore(file, {"--seed": 0}, CHECKS, 5, 0).secret("key") == RatingStore(file, {}, CHECKS, 3, 0).secret(
        "key"
    )
    (tmp_path / "text.sqlite").write_text("no database, but longer than its head would be " * 40)
    with pytest.raises(UserError, match="not a database"):
        RatingStore(tmp_path / "text.sqlite", {}, CHECKS, 3, 0)
    (tmp_path / "link.sqlite").symlink_to(tmp_path.parent / "elsewhere.sqlite")
    with pytest.raises(UserError, match="cannot be used for ratings"):
        RatingStore(tmp_path / "link.sqlite", {}, CHECKS, 3, 0)
    assert not (tmp_path.parent / "elsewhere.sqlite").exists()


def test_answers_are_on_disk_before_the_page_says_so(tmp_path):
    _, store = open_store(write_run(tmp_path))
    with store._transaction() as connection:
        found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]
    assert not connection.in_transaction


@pytest.mark.parametrize(
    ("typed", "code"),
    [("12ab-34cd-56ef", "12ab-34cd-56ef"), (" 12AB 34cd56ef", "12ab-34cd-56ef"), ("12ab", None), ("x" * 12, None)],
)
def test_a_code_is_read_as_people_type_it(typed, code):
    assert is_code(typed) == code


def test_codes_do_not_repeat(tmp_path):
    _, store = open_store(write_run(tmp_path))
    codes = {store.new_rater() for _ in range(20)}
    assert len(codes) == 20 and all(is_code(code) == code for code in codes)
    assert np.unique([code.split("-") for code in codes]).size > 50
