"""Runs as jobs of Slurm: submitit submits them to a scheduler of three scripts that runs each at once."""

import json
import sys

import pytest

from eagle_jax.base.errors import UserError
from eagle_jax.studies.sweep.run import sweep_command
from eagle_jax.studies.sweep.starters import slurm_starter, start_here

SBATCH = """#!/bin/sh
# Keeps what was asked for, runs it and says its number.
number=$(($(cat "$SCHEDULER/count" 2>/dev/null || echo 0) + 1))
echo $number >"$SCHEDULER/count"
cp "$1" "$SCHEDULER/job_$number.sh"
sed -i "s/%j/$number/g; s/%t/0/g" "$SCHEDULER/job_$number.sh"
# Behind, as submitit puts what is to be run into its place when it knows the number.
SLURM_JOB_ID=$number SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 \\
  SLURM_JOB_NODELIST=here bash "$SCHEDULER/job_$number.sh" >"$SCHEDULER/out_$number.txt" 2>&1 &
echo "Submitted batch job $number"
"""
SRUN = """#!/bin/sh
# srun [options] command: without the options.
while [ "${1#-}" != "$1" ]; do
  case "$1" in --output | --error) shift ;; esac
  shift
done
exec "$@"
"""
SACCT = """#!/bin/sh
echo "JobID|State|NodeList"
for number in $(seq "$(cat "$SCHEDULER/count")"); do echo "$number|${STATE:-RUNNING}|here"; done
"""


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """A folder whose programs are all that there is of Slurm."""
    pytest.importorskip("submitit")
    folder = tmp_path / "scheduler"
    folder.mkdir()
    for name, program in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("SCHEDULER", str(folder))
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def test_a_command_is_a_job_with_what_was_asked_for(scheduler, tmp_path):
    start = slurm_starter(tmp_path / "slurm", "partition=gpu,gpus_per_node=2,timeout_min=30")
    command = [sys.executable, "-c", "import sys; print('said'); sys.exit(3)"]
    assert start(command, tmp_path / "log.txt") == 3
    assert (tmp_path / "log.txt").read_text() == "said\n"
    script = (scheduler / "job_1.sh").read_text()
    for line in ("--partition=gpu", "--gpus-per-node=2", "--time=30", "--job-name=eagle_jax"):
        assert f"#SBATCH {line}\n" in script


def test_a_job_that_slurm_ends_is_a_failed_run_with_its_state(scheduler, tmp_path, monkeypatch):
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    (scheduler / "srun").write_text("#!/bin/sh\n")  # nothing runs
    monkeypatch.setenv("STATE", "TIMEOUT")
    monkeypatch.setattr(SlurmJob, "watcher", SlurmInfoWatcher(delay_s=0))  # of what Slurm says: a minute
    monkeypatch.setattr(SlurmJob, "_results_timeout_s", 0)  # until what a job wrote is seen: 15 s
    log = tmp_path / "log.txt"
    assert slurm_starter(tmp_path / "slurm", "")(["true"], log) == 1
    assert "Slurm ended job 1 as TIMEOUT: " in log.read_text()


def test_a_job_that_slurm_does_not_take_is_a_failed_run_with_its_reason(scheduler, tmp_path):
    (scheduler / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition' >&2\nexit 1\n")
    log = tmp_path / "log.txt"
    assert slurm_starter(tmp_path / "slurm", "partition=gone")(["true"], log) == 1
    assert "Slurm did not take the job: " in log.read_text() and "invalid partition" in log.read_text()


@pytest.mark.parametrize(("asked", "said"), [("partition", "no name=value"), ("partitoin=gpu", "partitoin")])
def test_a_wrong_parameter_is_named_before_anything_is_there(scheduler, tmp_path, asked, said):
    with pytest.raises(UserError, match=said):
        slurm_starter(tmp_path / "slurm", asked)
    assert not (tmp_path / "slurm").exists()


def test_without_slurm_it_is_said_where_to_start(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no sbatch here"):
        slurm_starter(tmp_path / "slurm", "")


def test_here_a_command_is_a_process_whose_words_are_kept(tmp_path):
    command = [sys.executable, "-c", "import sys; print('out', flush=True); print('err', file=sys.stderr); sys.exit(2)"]
    assert start_here(command, tmp_path / "log.txt") == 2
    assert (tmp_path / "log.txt").read_text() == "out\nerr\n"


def test_a_sweep_on_slurm_is_the_sweep(scheduler, tmp_path, monkeypatch, capsys):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").touch()
    (tmp_path / "experiments" / "stub.py").write_text(
        "import json, pathlib, sys\n"
        "flags = dict(a.removeprefix('--').split('=', 1) for a in sys.argv[1:])\n"
        "folder = pathlib.Path(flags['workdir']); folder.mkdir(parents=True)\n"
        "(folder / 'results.json').write_text(json.dumps({'tables': []}))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sweep_command(["--experiment=stub", "--grid=config.rate=1,2", "--workdir=sweep", "--slurm"])
    assert capsys.readouterr().out == "report: sweep/report.html\n"
    assert [json.loads(path.read_text())["code"] for path in sorted(tmp_path.glob("sweep/outcomes/*"))] == [0, 0]
    assert (scheduler / "count").read_text() == "2\n"
