"""The program is killed, interrupted and run twice at once: what was finished stays, once, and nothing lives on."""

import random
import signal
import subprocess
import time
from typing import Any

import pytest
from fault_kit import Bench, finish, lines, wait_until

SLOW = """
import time

class Slow(nn.Linear):
    def forward(self, images):
        time.sleep(0.05)
        return super().forward(images.flatten(1))

def slow():
    return Slow(784, 10)
"""


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────────────────────────


TWENTY = pytest.param(20, "[eager, {name: second, threads: 1}]", marks=[pytest.mark.bars, pytest.mark.timeout(1800)])


@pytest.mark.parametrize(("instants", "variants"), [(3, "[eager]"), TWENTY])
def test_killed_at_any_instant_it_goes_on(bench, instants, variants):
    """Each time with --resume; it begins anew when all is done."""
    rng = random.SystemRandom()
    bench.write(SLOW, ["good", "slow"], variants=variants)
    kept: dict[str, dict[str, Any]] = {}
    for number in range(instants):
        flags = ("--resume", "latest") if bench.runs() else ()
        process = bench.start(*flags)
        delay = rng.uniform(0.3, 9.0)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        done = finish(process)
        assert done.returncode in (-signal.SIGKILL, 0), (number, delay, done)
        assert bench.all_gone(), (number, delay, bench.alive())
        kept = check_nothing_lost(bench, kept)
        if done.returncode == 0:
            check_complete(bench)
            bench.results.rename(bench.folder / f"finished-{number}")
            kept = {}
    done = bench.run(*(("--resume", "latest") if bench.runs() else ()))
    assert done.returncode == 0, done
    check_nothing_lost(bench, kept)
    check_complete(bench)
    assert bench.left_in_results() == []
    assert bench.left_in_temp() == []


def check_nothing_lost(bench: Bench, kept: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every trial that once stood stands still, word for word, and once; returns those that stand now."""
    if not bench.runs():
        return {}
    (run,) = bench.runs()
    trials = bench.trials(run)
    found = {trial["id"]: trial for trial in trials}
    assert len(found) == len(trials)
    assert {name: found.get(name) for name in kept} == kept
    lines(run / "sessions.jsonl")
    assert bench.manifest()["run_id"] == run.name
    return found


def check_complete(bench: Bench) -> None:
    (run,) = bench.runs()
    assert bench.manifest()["status"] == "complete"
    trials = bench.trials(run)
    assert sorted(trial["id"] for trial in trials) == sorted(bench.manifest()["trials"])
    assert {trial["status"] for trial in trials} == {"ok"}
    members = [member for session in lines(run / "sessions.jsonl") for member in session["members"]]
    assert set(members) == {trial["id"] for trial in trials}
    assert (run / "results.csv").read_text().count("\n") == len(trials) + 1
    assert (bench.results / "latest").resolve() == run.resolve()


# ── Ctrl-C ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_interrupted_once_keeps_what_is_finished_and_resumes_to_the_end(bench):
    bench.write(SLOW, ["good", "slow"])
    process = bench.start()
    assert wait_until(lambda: bench.runs() and len(bench.trials()) == 1), finish(process)
    time.sleep(0.5)  # in the middle of the next
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.returncode == 130, done
    assert bench.alive() == []
    (run,) = bench.runs()
    assert bench.manifest()["status"] == "interrupted"
    assert bench.manifest()["ended_at"]
    (first,) = bench.trials()
    for name in ("results.csv", "results.md", "results.json", "epochs.csv"):
        assert first["cell"]["model"] in (run / name).read_text(), name
    assert bench.left_in_temp() == []

    (run / ".results.csv.4711.0badcafe.tmp").write_text("half a ta")  # a kill in the middle of a write
    resumed = bench.run("--resume", run.name)
    assert resumed.returncode == 0, resumed
    assert bench.trials()[0] == first
    assert sorted(bench.by_model()) == ["good", "slow"]
    assert bench.manifest()["status"] == "complete"
    assert bench.left_in_results() == []


# ── two at once ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_runs_on_one_folder_and_a_resume_of_a_run_that_is_on(bench):
    bench.write(SLOW, ["slow"])
    one = bench.start(environ=bench.environ("one"))
    two = bench.start(environ=bench.environ("two"))  # of another machine, say, on the same disk
    assert wait_until(lambda: len(bench.runs()) == 2), (finish(one), finish(two))
    names = [run.name for run in bench.runs()]
    assert wait_until(lambda: len(bench.alive()) > 2)

    refused = bench.run("--resume", names[0], environ=bench.environ("three"))
    assert refused.returncode == 2, refused
    assert "another process is writing this run; wait for it, or stop it" in refused.stderr
    busy = bench.run("--no-wait", environ=bench.environ("one"))
    assert busy.returncode == 2, busy
    assert "another run of yours is measuring on this machine" in busy.stderr

    for done in (finish(one), finish(two)):
        assert done.returncode == 0, done
    assert [run.name for run in bench.runs()] == names
    for run in bench.runs():
        assert [trial["status"] for trial in bench.trials(run)] == ["ok"]
    assert (bench.results / "latest").resolve().name in names
    assert bench.left_in_results() == []


# ── several processes a trial ────────────────────────────────────────────────────────────────────────────────────────


def test_killed_while_several_processes_train_none_is_left_and_it_goes_on(bench):
    bench.write(SLOW, ["slow"], variants="[{name: two, processes: 2}]")
    process = bench.start()
    assert wait_until(lambda: len(bench.alive()) >= 5), finish(process)  # with guardian, launcher and ranks
    time.sleep(random.SystemRandom().uniform(0.0, 6.0))
    process.kill()
    finish(process)
    assert bench.all_gone(), bench.alive()
    assert bench.left_in_temp() == []
    done = bench.run("--resume", "latest")
    assert done.returncode == 0, done
    check_complete(bench)
