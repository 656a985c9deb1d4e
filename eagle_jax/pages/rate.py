"""The command `eagle-jax rate`; what it runs is imported once its flags have been read."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.command_line import FlagParser
from eagle_jax.base.errors import UserError

_FILE, _GENERATIONS = "ratings.sqlite", "generations.sqlite"


def rating_command(arguments: Sequence[str]) -> None:
    """Reads the flags; asks a model, imports, exports or serves the ratings of a run."""
    flags = _parser().parse_args(arguments)
    for name, least in (("raters", 1), ("starts", 1), ("seed", 0), ("port", 0)):
        if (value := getattr(flags, name)) is not None and value < least:
            raise UserError(f"--{name}={value}: must be at least {least}")
    if flags.model is None and (flags.endpoint or flags.api_key_variable):
        raise UserError("--endpoint needs --model, the endpoint's name of a model")
    from eagle_jax.pages.rated_run import begun_experiment
    from eagle_jax.pages.rating_csv import read_csv, to_csv
    from eagle_jax.pages.rating_store import RatingStore

    # Each with what it reads: the catalogue of an ELM run wants more packages, and their time.
    if begun_experiment(flags.workdir) == "elm":
        from eagle_jax.pages.elm.rated_run import read_rated_elm_run as read
    else:
        from eagle_jax.pages.rated_run import read_rated_run as read
    run = read(flags.workdir, flags.starts)
    about = {"records": run.digest, "--starts": flags.starts or "all", "--seed": flags.seed}
    store = RatingStore(flags.workdir / _FILE, about, run.checks, flags.raters, flags.seed, is_blind=run.is_blind)
    if flags.take is not None:
        forms = read_csv(flags.take, run.items)
        print(f"{flags.take}: {store.add(forms)} forms taken over of {len(forms)}")
    if flags.model is not None:
        _ask(flags, run, store)
    if flags.export is not None:
        text = to_csv(store.forms(), run.items)
        write_atomically(flags.export, lambda file: file.write(text.encode()))
        print(f"ratings: {flags.export}")
    if (flags.take, flags.model, flags.export) == (None, None, None):
        _serve(flags, run, store)


def _ask(flags: argparse.Namespace, run, store) -> None:
    from eagle_jax.pages.model_rater import ask_model

    if flags.endpoint is None:
        from eagle_jax.language_model.sampling.local import LocalGenerator
        from eagle_jax.stages.models import load_model

        generator = LocalGenerator(load_model(flags.model), batch_size=32, length_multiple=64)
    else:
        from eagle_jax.language_model.remote.cache import GenerationCache
        from eagle_jax.language_model.remote.client import RemoteGenerator

        generator = RemoteGenerator(_endpoint(flags), GenerationCache(flags.workdir / _GENERATIONS))
    malformed = ask_model(run, store, generator, flags.seed)
    told = ", ".join(f"{reason}: {count}" for reason, count in malformed.items()) or "none"
    print(f"{generator.name}: {2 * len(run.items)} forms; malformed answers: {told}")


def _endpoint(flags: argparse.Namespace):
    from eagle_jax.language_model.remote.settings import RemoteBudget, RemotePrices, RemoteSettings

    try:
        return RemoteSettings(
            base_url=flags.endpoint,
            model=flags.model,
            api_key_variable=flags.api_key_variable,
            api="chat",
            max_tokens_field="max_tokens",
            request_fields={},
            concurrency=8,
            timeout_seconds=120.0,
            max_tries=5,
            backoff_seconds=1.0,
            max_wait_seconds=60.0,
            budget=RemoteBudget(max_requests=None, max_tokens=None),
            prices=RemotePrices(prompt=None, completion=None),
        )
    except ValueError as error:
        raise UserError(f"--endpoint={flags.endpoint}: {error}") from error


def _serve(flags: argparse.Namespace, run, store) -> None:
    if missing := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
        raise UserError(f"the pages need {' and '.join(missing)}: pip install 'eagle_jax[pages]'")
    from eagle_jax.pages import web
    from eagle_jax.pages.rating_site import RatingSite

    consent = run.form.consent if flags.consent is None else _read_text(flags.consent).split("\n\n")
    token = "" if web.is_loopback(flags.host) else store.secret("token")
    site = RatingSite(run=run, store=store, consent=consent, token=token, key=store.secret("key"))
    listening = web.listen(flags.host, flags.port)
    address = web.address_of(listening, token)
    print(f"{len(run.items)} texts of {flags.workdir}, {flags.raters} raters for each; Ctrl-C ends it")
    print(f"raters:          {address}")
    print(f"results, yours:  {address}results/{site.key}", flush=True)
    web.serve(site.app(), listening)


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise UserError(f"--consent={file}: {getattr(error, 'strerror', None) or error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="eagle-jax rate",
        description="Pages on which people rate the texts of a run: EAGLE's beside their anchors, blind. What they "
        f"answer is kept in {_FILE} of the run's folder; after an interruption the same command goes on.",
    )
    run = "a finished run of experiments.eagle, or of experiments.elm"
    parser.add_argument("--workdir", type=Path, required=True, metavar="RUN", help=run)
    parser.add_argument("--host", default="127.0.0.1", help="any other than this machine's gets a token in its address")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    parser.add_argument("--raters", type=int, default=3, help="people who rate the same text (default: 3)")
    starts = "rate the texts from the first so many held-out pairs, of ELM those of each task (default: all)"
    parser.add_argument("--starts", type=int, metavar="N", help=starts)
    parser.add_argument("--seed", type=int, default=0, help="of who gets what in which order (default: 0)")
    consent = "what people agree to before they begin; an empty line parts paragraphs"
    parser.add_argument("--consent", type=Path, metavar="FILE", help=consent)
    model = "ask a language model, in both orders, and end: a folder, minilens/<name>, or what --endpoint calls it"
    parser.add_argument("--model", metavar="NAME", help=model)
    parser.add_argument("--endpoint", metavar="URL", help="where --model is, if it speaks OpenAI's protocol")
    parser.add_argument("--api_key_variable", metavar="NAME", help="the environment variable with the endpoint's key")
    take = "take over what another machine exported, and end"
    parser.add_argument("--import", dest="take", type=Path, metavar="FILE.csv", help=take)
    parser.add_argument("--export", type=Path, metavar="FILE.csv", help="write all answers, and end")
    return parser
