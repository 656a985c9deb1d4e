"""Designs of a catalogue: the real command, streams against arrays, errors."""

import dataclasses
import json
import weakref

import jax
import numpy as np
import pytest

from eagle_jax.base.command_line import load_config
from eagle_jax.base.errors import CorruptArtifactError, StaleArtifactError, UserError
from eagle_jax.base.settings import to_settings
from eagle_jax.data.embedding_files import EmbeddingFileError, EmbeddingFiles
from eagle_jax.design.g_optimal import g_optimal_design
from eagle_jax.studies.catalogue_designs import run as catalogue_designs
from eagle_jax.studies.catalogue_designs.parallel import CatalogueDesigns
from eagle_jax.studies.catalogue_designs.run import CatalogueDesignsExperiment, run_catalogue_designs
from tests.programs import ROOT, run_module

CONFIG = "experiments/configs/catalogue_designs.py:quick"


def test_the_quick_experiment_from_its_command_line(tmp_path):
    flags = [f"--config={CONFIG}", "--config.synthetic.num_problems=250", f"--workdir={tmp_path}"]
    done = run_module("experiments.designs", *flags)
    assert (done.returncode, done.stdout) == (0, f"report: {tmp_path / 'report.md'}\n"), done.stderr
    assert "problems: 250, solved: 250" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "histograms.png").stat().st_size > 0
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {f"designs/{field}.npy" for field in CatalogueDesigns._fields} <= made
    assert {"catalogue/next_embeddings.npy", "designs/summary.json", "times.json"} <= made
    rows = (tmp_path / "designs" / "metrics" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 2


def draw(num_problems, seed=0):
    return np.random.default_rng(seed).normal(size=(num_problems, 9, 3)).astype(np.float32)


def experiment(path, **changes):
    settings = to_settings(CatalogueDesignsExperiment, load_config(str(ROOT / CONFIG)))
    changes = {"num_kept": 4, "problems_per_chunk": 8, **changes}
    return dataclasses.replace(settings, next_embeddings=str(path), **changes)


@pytest.fixture
def shards(tmp_path):
    """Two files with 21 problems, of which one has a nan and one an inf."""
    rows = draw(21)
    rows[5, 1, 1], rows[20, 0, 0] = np.nan, np.inf
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, part in enumerate(np.split(rows, [13])):
        np.save(folder / f"{number}.npy", part)
    return folder


def test_streamed_over_eight_devices_is_what_one_call_gives(shards, tmp_path, monkeypatch):
    """And at no time is more than one chunk of the input in memory."""
    alive, peak = [], []
    read = EmbeddingFiles.read

    def spied(self, first, last):
        piece = read(self, first, last)
        assert isinstance(piece, np.ndarray) and not isinstance(piece.base, np.memmap)
        alive.append(weakref.ref(piece))
        peak.append(sum(len(found) for ref in alive if (found := ref()) is not None))
        return piece

    monkeypatch.setattr(EmbeddingFiles, "read", spied)
    report = run_catalogue_designs(experiment(shards), tmp_path / "run")
    assert len(peak) == 3 and max(peak) <= 16  # the chunk before goes when the next one is there

    rows = np.concatenate([np.load(shards / f"{i}.npy") for i in (0, 1)])
    direct = jax.device_get(g_optimal_design(rows))
    stage = tmp_path / "run" / "designs"
    found = {field: np.load(stage / f"{field}.npy") for field in CatalogueDesigns._fields}
    for field in ("rank", "num_iterations", "converged"):
        np.testing.assert_array_equal(found[field], getattr(direct, field), field)
    for field in ("design_weights", "approximation_factor"):
        np.testing.assert_allclose(found[field], getattr(direct, field), rtol=1e-6, atol=1e-12)
    assert np.flatnonzero(~found["is_finite"]).tolist() == [5, 20]
    assert found["kept_rows"].shape == (21, 4)

    summary = json.loads((stage / "summary.json").read_text())
    assert (summary["num_problems"], summary["num_solved"]) == (21, 19)
    assert (summary["num_unsolved"], summary["num_non_finite"]) == (0, 2)
    solved = found["kept_factor"][found["converged"]]
    assert summary["quantiles"]["kept_factor"]["median"] == pytest.approx(np.median(solved))
    assert "with a nan or inf, left out: 2" in report.read_text()
    assert not (stage / "parts").exists()
    # The run is of the embeddings that it read.
    np.save(shards / "1.npy", draw(8, seed=1))
    with pytest.raises(StaleArtifactError, match=r"next_embeddings\.1\.npy: .* there, .* now"):
        run_catalogue_designs(experiment(shards), tmp_path / "run")


def test_a_damaged_part_is_told_and_whole_ones_are_gone_on_from(shards, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    monkeypatch.setattr(catalogue_designs, "_join_parts", stop)
    with pytest.raises(Stopped):
        run_catalogue_designs(experiment(shards), tmp_path / "run")
    part = tmp_path / "run" / "designs" / "parts" / "00000001.npz"
    content = bytearray(part.read_bytes())
    content[300] ^= 1  # in the weights
    part.write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=r"parts/00000001\.npz: cannot be used: .*CRC"):
        run_catalogue_designs(experiment(shards), tmp_path / "run")
    content[300] ^= 1
    part.write_bytes(content)
    monkeypatch.undo()
    monkeypatch.setattr(catalogue_designs, "make_designer", lambda *_: None)
    run_catalogue_designs(experiment(shards), tmp_path / "run")
    assert json.loads((tmp_path / "run/designs/summary.json").read_text())["num_solved"] == 19


def test_what_cannot_be_solved_at_all_is_refused_before_anything_is_written(shards, tmp_path):
    for settings, error, said in (
        (experiment(tmp_path / "nowhere"), EmbeddingFileError, "nowhere: is not there"),
        (experiment(shards, num_kept=10), UserError, "num_kept is 10, but a problem has only 9"),
    ):
        with pytest.raises(error, match=said):
            run_catalogue_designs(settings, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_unsolved_problems_are_counted_and_named_so(tmp_path):
    np.save(tmp_path / "rows.npy", draw(10))
    settings = experiment(tmp_path / "rows.npy")
    design = dataclasses.replace(settings.design, max_iterations=1)
    settings = dataclasses.replace(settings, design=design)
    report = run_catalogue_designs(settings, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "designs" / "summary.json").read_text())
    direct = g_optimal_design(np.load(tmp_path / "rows.npy"), design)
    expected = int(np.sum(~direct.converged))
    assert expected > 0 and summary["num_unsolved"] == expected
    assert f"unsolved: {expected}" in report.read_text()
