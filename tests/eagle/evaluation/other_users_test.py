"""Which episodes the rows of an evaluation play."""

from eagle_jax.eagle.environment import Start
from eagle_jax.eagle.evaluation.other_users import other_users, with_profiles_of, with_profiles_of_others
from tests.eagle.evaluation.records import make_record


def starts_of(users):
    return [Start(entity, user, f"text {entity}", f"profile {user}") for entity, user in enumerate(users)]


def test_an_agent_is_told_of_another_user_and_all_else_stays():
    starts = starts_of([3, 3, 5, 3, 4])
    found = with_profiles_of_others(starts)
    assert [start.profile for start in found] == [f"profile {user}" for user in (5, 5, 3, 4, 3)]
    assert [start._replace(profile="") for start in found] == [start._replace(profile="") for start in starts]


def test_the_other_users_are_each_somebody_else():
    assert other_users(starts_of([3, 3, 5, 3, 4])) == {3: 5, 5: 4, 4: 3}
    assert other_users(starts_of([3, 3])) == {3: 3}


def test_where_there_is_no_other_user_the_profile_stays():
    assert with_profiles_of_others(starts_of([3, 3])) == starts_of([3, 3])


def test_what_it_wrote_is_judged_by_the_own_profile():
    starts = starts_of([3, 5])
    told = [make_record([0.0], [], profile=start.profile) for start in with_profiles_of_others(starts)]
    assert [record.profile for record in told] == ["profile 5", "profile 3"]
    assert [record.profile for record in with_profiles_of(starts, told)] == ["profile 3", "profile 5"]
