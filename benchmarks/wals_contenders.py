"""An iteration of WALS, by this build, by an earlier one and by two libraries, as contenders of `wals`.

Nothing of the package is imported before a contender says which checkout it comes from.

Each times a long and a short fit a turn: their difference is iterations alone, without what is done once.
Axis letters: `U` users, `N` items, `R` ratings, `d` embedding width.
"""

import sys
import time

import numpy as np

from benchmarks.worker import processor_seconds

REGULARIZATION = 5.0


def draw(num_users, num_items, num_ratings, seed):
    """users [R], items [R] and ratings [R]: users by activity and items by popularity from log-normal laws."""
    rng = np.random.default_rng(seed)
    activity = rng.lognormal(0.0, 1.0, num_users)
    counts = np.clip(1.35 * num_ratings * activity / activity.sum(), 20, 0.6 * num_items).astype(int)
    popularity = np.cumsum(rng.lognormal(0.0, 1.5, num_items))
    user = np.repeat(np.arange(num_users), counts)
    item = np.searchsorted(popularity / popularity[-1], rng.random(len(user))).clip(0, num_items - 1)
    pairs = np.unique(user * num_items + item)
    pairs = np.sort(rng.permutation(pairs)[:num_ratings])
    user, item = (index.astype(np.int32) for index in np.divmod(pairs, num_items))
    taste, quality = rng.normal(size=(num_users, 8)), rng.normal(size=(num_items, 8))
    liking = sum(taste[user, k] * quality[item, k] for k in range(8)) / 3
    rating = np.clip(np.round(3.5 + liking + rng.normal(size=len(pairs)) / 2), 1, 5)
    return user, item, rating.astype(np.float32)


def _turns(fit, iterations, objective):
    """A contender of `fit(iterations) -> output`: seconds and processor seconds an iteration."""

    def run(_):
        spent = []
        for number in (1, 1 + iterations):
            wall, processor = time.perf_counter(), processor_seconds()
            output = fit(number)
            spent.append((time.perf_counter() - wall, processor_seconds() - processor))
        (wall, processor), (long_wall, long_processor) = spent
        seconds = (long_wall - wall) / iterations
        values = {"processor_seconds": (long_processor - processor) / iterations, "objective": objective(output)}
        return seconds, values | getattr(fit, "once", {})

    return run


def ours(*, data, dim, iterations, checkout):
    """This build, or the one whose folder is `checkout`."""
    if checkout is not None:
        sys.path.insert(0, checkout)
    import jax
    import jax.numpy as jnp

    from eagle_jax.embeddings import wals

    try:
        from eagle_jax.data.catalogue import RatingTable
    except ModuleNotFoundError:  # an earlier build
        from eagle_jax.base.types import RatingTable
    user, item, rating = draw(**data)
    names = [tuple(map(str, range(data[size]))) for size in ("num_users", "num_items")]
    table = RatingTable(user_names=names[0], item_names=names[1], user_index=user, item_index=item, rating=rating)

    def fit(number):
        settings = wals.WALSSettings(
            dim=dim,
            num_iterations=number,
            bias="user_item",
            observed_weight=1.0,
            unobserved_weight=0.0,
            regularization=REGULARIZATION,
            regularization_scaling=0.0,
            bias_regularization=REGULARIZATION,
        )
        return jax.block_until_ready(wals.fit_wals(table, settings, jax.random.key(0)))

    fit.once = {"compile_seconds": _first_less_second(fit, 1 + iterations), "matmul_flops": matmul_operations(jax, jnp)}
    _first_less_second(fit, 1)
    return _turns(fit, iterations, lambda output: float(output.objective[-1]))


def _first_less_second(fit, number):
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        fit(number)
        seconds.append(time.perf_counter() - start)
    return seconds[0] - seconds[1]


def matmul_operations(jax, jnp, size=2048):
    """Operations a second of a large product, the best of five."""
    one = jnp.ones((size, size))
    product = jax.jit(jnp.matmul)
    product(one, one).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(one, one).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def cmfrec(*, data, dim, iterations, cores):
    """cmfrec's CMF: the same objective, by Cholesky factors in float32."""
    import cmfrec
    import pandas

    user, item, rating = draw(**data)
    frame = pandas.DataFrame({"UserId": user, "ItemId": item, "Rating": rating})

    def fit(number):
        model = cmfrec.CMF(
            k=dim,
            lambda_=REGULARIZATION,
            method="als",
            use_cg=False,
            niter=number,
            user_bias=True,
            item_bias=True,
            scale_lam=False,
            precompute_for_predictions=False,
            use_float=True,
            nthreads=cores,
            verbose=False,
        )
        return model.fit(frame)

    def objective(model):
        users = pandas.Index(model.user_mapping_).get_indexer(user)
        items = pandas.Index(model.item_mapping_).get_indexer(item)
        inner = np.einsum("rd,rd->r", model.A_[users], model.B_[items])
        error = rating - model.glob_mean_ - model.user_bias_[users] - model.item_bias_[items] - inner
        parts = (model.A_, model.B_, model.user_bias_, model.item_bias_)
        return float(np.sum(np.float64(error) ** 2) + REGULARIZATION * sum(np.sum(np.float64(p) ** 2) for p in parts))

    return _turns(fit, iterations, objective)


def implicit(*, data, dim, iterations, cores):
    """implicit's ALS, by Cholesky factors in float32; its objective is that of implicit feedback."""
    import implicit.als
    import scipy.sparse

    user, item, rating = draw(**data)
    matrix = scipy.sparse.csr_matrix((rating, (user, item)), (data["num_users"], data["num_items"]))

    def fit(number):
        model = implicit.als.AlternatingLeastSquares(
            factors=dim,
            regularization=REGULARIZATION,
            use_cg=False,
            use_gpu=False,
            iterations=number,
            num_threads=cores,
            random_state=0,
            dtype=np.float32,
        )
        model.fit(matrix, show_progress=False)
        return model

    return _turns(fit, iterations, lambda model: None)
