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
    from eagle_jax.eagle.serving.loading import load_with_reference
    from eagle_jax.pages import web
    from eagle_jax.pages.explore_site import ExploreSite
    from eagle_jax.pages.explored_run import ITEMS, USERS, explored_run

    # Before the models are loaded, which takes a while: what is wrong with the address is told at once.
    with web.listen(flags.host, flags.port) as listening:
        run = explored_run(*load_with_reference(flags.workdir, flags.agent), flags.seed)
        token = "" if web.is_loopback(flags.host) else secrets.token_urlsafe(12)
        sizes = ", ".join(f"{len(run.positions[kind])} {kind}" for kind in (ITEMS, USERS))
        print(f"{run.agent.name} of {flags.workdir}: {sizes}; Ctrl-C ends it")
        print(f"explore: {web.address_of(listening, token)}", flush=True)
        web.serve(ExploreSite(run=run, token=token).app(), listening)


def _parser() -> argparse.ArgumentParser:
    parser = FlagParser(
        prog="eagle-jax explore",
        allow_abbrev=False,
        description="Pages on which the agent of a run is watched and given instructions: a map of items and users, "
        "what an instruction makes of a text and of each term of U, and the agent beside the reference policy. "
        "Nothing is written into the run's stages; what is explored is kept until the command ends.",
    )
    add_agent_flags(parser)
    parser.add_argument("--host", default="127.0.0.1", help="any other than this machine's gets a token in its address")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    seed = "the same seed and the same steps give the same texts (default: 0)"
    parser.add_argument("--seed", type=int, default=0, help=seed)
    return parser
