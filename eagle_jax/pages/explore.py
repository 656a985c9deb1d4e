"""The command `eagle-jax explore`; what it runs is imported once its flags have been read."""

from __future__ import annotations

import argparse
import importlib.util
import secrets
from collections.abc import Sequence

from eagle_jax.base.command_line import FlagParser
from eagle_jax.base.errors import UserError
from eagle_jax.eagle.serving.command import add_agent_flags


def explore_command(arguments: Sequence[str]) -> None:
    """Reads the flags, loads the agent of a run and serves pages on it until it is interrupted."""
    flags = _parser().parse_args(arguments)
    for name in ("seed", "port"):
        if (value := getattr(flags, name)) < 0:
            raise UserError(f"--{name}={value}: must be at least 0")
    if missing := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
        raise UserError(f"the pages need {' and '.join(missing)}: pip install 'eagle_jax[pages]'")
    from eagle_jax.pages import web
    from eagle_jax.pages.rated_run import begun_experiment

    is_elm = begun_experiment(flags.workdir) == "elm"
    if is_elm and flags.agent is not None:
        raise UserError(f"--agent={flags.agent}: {flags.workdir} is a run of experiments.elm, which has no agents")

    # Before the models are loaded, which takes a while: what is wrong with the address is told at once.
    with web.listen(flags.host, flags.port) as listening:
        token = "" if web.is_loopback(flags.host) else secrets.token_urlsafe(12)
        told, app = (_elm_site if is_elm else _eagle_site)(flags, token)
        print(f"{told}; Ctrl-C ends it")
        print(f"explore: {web.address_of(listening, token)}", flush=True)
        web.serve(app, listening)


def _eagle_site(flags: argparse.Namespace, token: str):
    """What there is, in words, and the pages."""
    from eagle_jax.eagle.serving.loading import load_with_reference
    from eagle_jax.eagle.serving.played import PlayedEpisodes
    from eagle_jax.pages.explore_site import ExploreSite
    from eagle_jax.pages.explored_run import ITEMS, USERS, explored_run

    run = explored_run(*load_with_reference(flags.workdir, flags.agent), flags.seed, PlayedEpisodes(flags.workdir))
    sizes = ", ".join(f"{len(run.positions[kind])} {kind}" for kind in (ITEMS, USERS))
    return f"{run.agent.name} of {flags.workdir}: {sizes}", ExploreSite(run=run, token=token).app()


def _elm_site(flags: argparse.Namespace, token: str):
    from eagle_jax.pages.elm.space import load_elm_space
    from eagle_jax.pages.elm.space_site import ElmSpaceSite

    space = load_elm_space(flags.workdir, flags.seed)
    sizes = f"{len(space.positions)} items, {len(space.tags)} concept vectors"
    return f"{space.name}, {flags.workdir}: {sizes}", ElmSpaceSite(space=space, token=token).app()


def _parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="eagle-jax explore",
        description="Pages on which the agent of a run is watched and given instructions: a map of items and users, "
        "what an instruction makes of a text and of each term of U, and the agent beside the reference policy. Of "
        "a run of experiments.elm: points between items and along concept vectors, and what the ELM says is there. "
        "Nothing is written into the run's stages; what is explored is kept until the command ends.",
    )
    add_agent_flags(parser)
    parser.add_argument("--host", default="127.0.0.1", help="any other than this machine's gets a token in its address")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    seed = "the same seed and the same steps give the same texts (default: 0)"
    parser.add_argument("--seed", type=int, default=0, help=seed)
    return parser
