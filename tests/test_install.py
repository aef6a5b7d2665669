"""Set-up: which torch `make` installs, what each target adds, and the wheel in an environment of its own."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from socket import create_server

import pytest

ROOT = Path(__file__).resolve().parent.parent
CPU = "torch torchvision --index-url https://download.pytorch.org/whl/cpu"


@pytest.fixture
def install(monkeypatch):
    """scripts/install.py on Linux, as a fresh environment runs it; ``called`` has its calls of pip."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    install.called = []
    monkeypatch.setattr(install.sys, "platform", "linux")
    monkeypatch.setattr(install.subprocess, "call", lambda words, cwd: install.called.append(" ".join(words[8:])) or 0)
    return install


@pytest.mark.parametrize(
    ("wish", "driver", "online", "called", "said"),
    [
        ("", True, True, ["-e ."], ""),
        ("", False, True, [CPU, "-e ."], "no NVIDIA driver here: torch's CPU build from download.pytorch.org"),
        ("", False, False, ["-e ."], "did not answer within 5 s: torch as pip's own index has it"),
        ("cuda", False, True, ["-e ."], ""),
        ("cpu", True, True, [CPU, "-e ."], "TORCH=cpu: torch's CPU build"),
        ("cpu", False, False, [], "TORCH=cpu: download.pytorch.org did not answer within 5 s"),
        ("gpu", False, True, [], "TORCH=gpu: say cpu or cuda"),
    ],
)
def test_torch_is_the_one_that_the_machine_or_the_user_wants(
    install, monkeypatch, capsys, wish, driver, online, called, said
):
    monkeypatch.setenv("TORCH", wish)
    monkeypatch.setattr(install, "has_driver", lambda: driver)
    monkeypatch.setattr(install, "answers", lambda url: online)
    assert install.main() == (0 if called else 2)
    assert install.called == called
    assert said in (told := capsys.readouterr().err)
    assert bool(said) == bool(told)


def test_an_extra_asks_nothing(install, monkeypatch):
    monkeypatch.setattr(install, "chosen", None)
    assert install.main("test") == 0
    assert install.called == ["-e .[test]"]


def test_a_server_that_is_silent_is_given_up(install, monkeypatch):
    monkeypatch.setattr(install, "ANSWER_S", 1)
    with create_server(("127.0.0.1", 0)) as silent:
        assert not install.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/")
    assert install.answers((ROOT / "pyproject.toml").as_uri())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_installs_once_and_only_what_a_target_needs(tmp_path):
    (tmp_path / "bin").mkdir()
    python, calls = tmp_path / "bin" / "python", tmp_path / "calls"
    python.write_text(f'#!/bin/sh\necho "$*" >> {calls}\n')
    python.chmod(0o755)

    def made(target):
        calls.write_text("")
        subprocess.run(["make", target, f"VENV={tmp_path}"], check=True, capture_output=True, cwd=ROOT)
        return [line for line in calls.read_text().splitlines() if "install" in line]

    assert made("run") == ["scripts/install.py"]
    assert made("test") == ["scripts/install.py test"]
    assert made("test") == made("run") == []


def test_the_wheel_alone_runs_in_an_empty_folder(tmp_path, bench_environ):
    """Its dependencies are lent: a path file leads to those of these tests, behind the wheel's own package."""
    wheels, venv, here = (tmp_path / name for name in ("wheels", "venv", "here"))
    here.mkdir()

    def ran(*words, **settings):
        done = subprocess.run([*map(str, words)], check=True, capture_output=True, text=True, **settings)
        return done.stdout

    ran(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels, cwd=ROOT)
    ran(sys.executable, "-m", "venv", "--without-pip", venv)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    ran(*pip, *wheels.iterdir())
    lent = [path for path in sys.path if Path(path).name == "site-packages"]
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text("\n".join(lent))
    environ = bench_environ() | {"PYTHONPATH": ""}
    flags = "--filter model=mlp,device=cpu,batch_size=1000,variant=eager --epochs 1 --seeds 1 --offline --format csv"
    table = ran(venv / "bin" / "mnist-bench", "run", *flags.split(), cwd=here, env=environ)
    assert ",ok," in table.splitlines()[1]
    assert [path.name for path in here.iterdir()] == ["results"]
    where = ran(python, "-c", "import mnist_bench; print(mnist_bench.__file__)", cwd=here, env=environ)
    assert Path(where).is_relative_to(venv)
