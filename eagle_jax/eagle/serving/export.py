"""A trained policy as a folder to hand on: the model, a card that says how to ask it, a NOTICE."""

from __future__ import annotations

import json
import shlex
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from eagle_jax.base.atomic_files import write_atomically
from eagle_jax.base.errors import UserError
from eagle_jax.base.work_directory import StageFolder
from eagle_jax.data.prompts import policy_prompt
from eagle_jax.eagle.evaluation.systems import DPO, EAGLE, FOR_OTHERS, HOME
from eagle_jax.eagle.serving.agent import Agent
from eagle_jax.eagle.serving.loading import load_agent, read_experiment
from eagle_jax.eagle.settings import EagleExperiment
from eagle_jax.language_model.checkpoints.hf_checkpoints import save_language_model
from eagle_jax.reports.markdown import LEFT, Column, table
from eagle_jax.reports.results import RESULTS_JSON
from eagle_jax.stages.models import model_path

CARD, NOTICE = "README.md", "NOTICE"
_DATA = {  # by the source of the catalogue
    "minilens": "MiniLens, which eagle_jax makes up: Apache License 2.0.",
    "movielens": "MovieLens of GroupLens: acknowledgement, and no commercial use without permission; the README of the "
    "data has the terms.",
    "amazon": "Amazon reviews of the McAuley Lab: the page of the data has the terms.",
}
_OF_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")  # what names of such files begin with
_COLUMNS = (
    Column("Row", "row", LEFT),
    Column("U", lambda row: row["cells"]["train/utility"]),
    Column("Gain", lambda row: row["cells"]["train/gain"]),
    Column("Held-out U", lambda row: row["cells"]["held_out/utility"]),
    Column("Held-out gain", lambda row: row["cells"]["held_out/gain"]),
    Column("Calls", lambda row: row["cells"]["environment_calls"]),
)


def export_agent(workdir: Path, folder: Path, name: str | None = None) -> Path:
    """Writes the policy of `load_agent` to a new folder, with its card; returns the card's path.

    In mode "lora" it is the whole model, and the low-rank updates are in `adapter` too. What the folder of the
    pretrained model says of its licence comes along. Raises `UserError` where the folder is there already.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; name a new folder")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"{folder.parent}: there is no such folder")
    experiment, agent = read_experiment(workdir), load_agent(workdir, name)
    if agent.chooser is not None:
        raise UserError(f"{workdir}: {agent.name} is no model, so it cannot be exported; name a trained agent")
    card, licences = model_card(agent, experiment, workdir), _licences(experiment)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(workdir / agent.name / "model", partial)
    model = agent.policy.model
    if model.config.lora is not None:  # its stage has the updates alone
        save_language_model(model, partial, str(model.params["token_embedding"].dtype))
    notice = f"{experiment.title}: {agent.name}\n\nWeights: {licences['weights']}\nData: {licences['data']}\n"
    pretrained = model_path(experiment.models.policy)
    for file in pretrained.iterdir() if pretrained.is_dir() else ():
        if file.name == NOTICE:
            notice += "\n" + file.read_text(encoding="utf-8", errors="replace")
        elif file.is_file() and file.name.upper().startswith(_OF_LICENCES):
            shutil.copy(file, partial)
    for file, text in ((CARD, card), (NOTICE, notice)):
        write_atomically(partial / file, lambda stream, text=text: stream.write(text.encode()))
    partial.rename(folder)
    return folder / CARD


def _licences(experiment: EagleExperiment) -> dict[str, Any]:
    policy, source = experiment.models.policy, experiment.catalogue.source
    is_own = policy.startswith("minilens/")
    return {
        "is_own": is_own,
        "weights": "pretrained by eagle_jax: Apache License 2.0."
        if is_own
        else f"trained from {Path(policy).name}, whose licence holds for these too.",
        "data": _DATA.get(source, "files of your own, whose terms hold for what is made from them."),
    }


def model_card(agent: Agent, experiment: EagleExperiment, workdir: Path) -> str:
    """The card of an agent of the run in `workdir`, in the Markdown of the Hugging Face Hub."""
    kind, _, seed = agent.name.partition("agent_")[2].rpartition("_")
    system = DPO if agent.name.startswith("preference_") else EAGLE
    of_others = {DPO} if system == EAGLE else {EAGLE, FOR_OTHERS}
    results = json.loads((workdir / RESULTS_JSON).read_bytes())
    rows = [
        row
        for row in results["table"]
        if row["kind"] in (None, kind)
        and row["environment"] in (None, HOME)
        and not of_others & {row["system"], row.get("policy")}
    ]
    evaluation = StageFolder(workdir / "evaluation", {})
    is_wanted = {"system": system, "kind": kind, "environment": HOME}
    played = [row for row in evaluation.read_jsonl("records.jsonl") if is_wanted.items() <= row.items()]
    record = next((row for row in played if row["steps"][0]["action"] is not None), played[0])
    fmt = agent.catalogue.entity_format
    prompt = policy_prompt(agent.environment.book, fmt, record["anchor"], record["profile"])
    sampling, is_chat = agent.policy_sampling, agent.policy.model.tokenizer.chat_template is not None
    asked = {"messages": [{"role": "user", "content": prompt.text}]} if is_chat else {"prompt": prompt.text}
    options = {"max_tokens": sampling.max_new_tokens, "stop": list(prompt.stop)}
    options |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.top_k:
        options["top_k"] = sampling.top_k
    template = jinja2.Template(
        Path(__file__).with_name("card.md").read_text(), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return template.render(
        **_licences(experiment),
        title=experiment.title,
        name=agent.name,
        version=version("eagle_jax"),
        noun=fmt.noun,
        article="an" if fmt.noun[0] in "aeiou" else "a",
        blocks=", ".join(fmt.blocks),
        environment=Path(experiment.models.environment).name,
        horizon=agent.horizon,
        prompt=prompt.text,
        prompt_literal=json.dumps(prompt.text),
        answer=record["steps"][0]["action"],
        stop=prompt.stop[0],
        sampling=sampling,
        is_chat=is_chat,
        request=shlex.quote(json.dumps({"model": agent.name, **asked, **options})),
        table=table(rows, _COLUMNS),
        num_pairs=max(row["num_pairs"] for row in rows),
        level=f"{results['confidence']:.0%}".replace("%", " %"),
        seed=seed,
    )
