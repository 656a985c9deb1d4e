"""The people at the pages, a few and for a moment: they go through forms without an error, and errors are counted."""

import pytest

pytest.importorskip("uvicorn", reason="the pages need uvicorn: pip install 'eagle_jax[pages]'")

from benchmarks.page_clients import Client, Visit, explorer, rater, reader_of_results, stay, table
from eagle_jax.language_model.generation import ScriptedGenerator
from eagle_jax.pages.explore_site import ExploreSite
from eagle_jax.pages.explored_run import explored_run
from eagle_jax.pages.rating_site import RatingSite
from tests.pages.made_up_run import open_store, write_run
from tests.pages.served_site import served


def test_raters_answer_form_after_form_without_an_error(tmp_path):
    run, store = open_store(write_run(tmp_path, num_pairs=30), raters=1000)
    site = RatingSite(run=run, store=store, consent=run.form.consent, token="", key="key")
    with served(site.app()) as address:
        client = Client(address, 0)
        steps = rater(client)
        for _ in range(14):  # two raters: consent, begin, ten forms; consent, begin
            next(steps)
        looking = Client(address, 1)
        next(reader_of_results("/results/key")(looking))
    assert [visit.problem for visit in (*client.visits, *looking.visits)] == [None] * 25
    assert [visit.page for visit in client.visits].count("rate: answer") == 10 == len(store.forms())


def test_explorers_find_all_they_ask_for(agent):
    run = explored_run(agent, ScriptedGenerator(lambda prompt, rng: "", "reference"), seed=0)
    with served(ExploreSite(run=run, token="").app()) as address:
        clients = [Client(address, number) for number in range(3)]
        for client in clients:
            steps = explorer(client)
            for _ in range(11):
                next(steps)
        stay([(explorer, Client(address, 9))], 0.0, 0.0)
        away = Client(address, 4)
        away.ask("explore: nothing", "/nothing")
    assert {visit.problem for client in clients for visit in client.visits} == {None}
    assert {visit.page for visit in clients[0].visits} == {
        f"explore: {name}" for name in ("page", "style, scripts", "map", "search", "pointed at")
    }
    assert away.visits[0].problem == "status 404"
    assert away.ask("explore: gone", "/") == ("", "") and "Connection" in away.visits[1].problem  # nobody is there


def test_the_table_by_hand():
    together = [Visit("a", seconds, None) for seconds in (0.1, 0.2, 0.3)] + [Visit("a", 0.4, "status 500")]
    (row,) = table([*together, Visit("b", 1.0, None)], [Visit("a", 0.1, None), Visit("a", 0.1, "status 404")])
    # Of 0.1 to 0.4 the 95th percentile lies 2.85 of the three ways up.
    assert row["p95"] == pytest.approx(0.385) and row["ratio"] == pytest.approx(3.85)
    assert (row["page"], row["visits"], row["alone"], row["errors"]) == ("a", 4, 2, 2)
