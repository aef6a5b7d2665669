"""Set-up: which torch `make` installs, what each target adds, and the wheel in an environment of its own."""

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from socket import create_server

import pytest
from check_kit import program

ROOT = Path(__file__).resolve().parent.parent
CPU = "torch torchvision --index-url https://download.pytorch.org/whl/cpu"


@pytest.fixture
def install(monkeypatch):
    """scripts/install.py on Linux, as a fresh environment runs it; ``called`` has its calls of pip."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    install = importlib.import_module("install")
    install.called = []
    monkeypatch.setattr(install.sys, "platform", "linux")
    monkeypatch.setattr(install.subprocess, "call", lambda words, cwd: install.called.append(" ".join(words[8:])) or 0)
    return install


# TORCH, is there a driver, and an index that answers -> the calls of pip, and what is said.
WISHES = [
    ("", True, True, ["-e ."], ""),
    ("", False, True, [CPU, "-e ."], "no NVIDIA driver here: torch's CPU build from download.pytorch.org"),
    ("", False, False, ["-e ."], "did not answer within 5 s: torch as pip's own index has it"),
    ("cuda", False, True, ["-e ."], ""),
    ("cpu", True, True, [CPU, "-e ."], "TORCH=cpu: torch's CPU build"),
    ("cpu", False, False, [], "TORCH=cpu: download.pytorch.org did not answer within 5 s"),
    ("gpu", False, True, [], "TORCH=gpu: say cpu or cuda"),
]


@pytest.mark.parametrize(("wish", "driver", "online", "called", "said"), WISHES)
def test_torch_is_the_one_that_is_wanted(install, monkeypatch, capsys, wish, driver, online, called, said):
    monkeypatch.setenv("TORCH", wish)
    monkeypatch.setattr(install, "has_driver", lambda: driver)
    monkeypatch.setattr(install, "answers", lambda url: online)
    assert (install.main(), install.called) == (0 if called else 2, called)
    told = capsys.readouterr().err
    assert (said in told, bool(told)) == (True, bool(said))


def test_an_extra_asks_nothing(install, monkeypatch):
    monkeypatch.setattr(install, "chosen", None)
    assert (install.main("test"), install.called) == (0, ["-e .[test]"])


def test_a_server_that_is_silent_is_given_up(install, monkeypatch):
    monkeypatch.setattr(install, "ANSWER_S", 1)
    with create_server(("127.0.0.1", 0)) as silent:
        assert not install.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/")
    assert install.answers((ROOT / "pyproject.toml").as_uri())


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_installs_once_and_only_what_a_target_needs(tmp_path):
    calls = tmp_path / "calls"
    program(tmp_path, "python", f'echo "$*" >> {calls}')

    def made(target):
        calls.write_text("")
        subprocess.run(["make", target, f"VENV={tmp_path}"], check=True, capture_output=True, cwd=ROOT)
        return [line for line in calls.read_text().splitlines() if "install" in line]

    found = [made(target) for target in ("run", "test", "test", "run")]
    assert found == [["scripts/install.py"], ["scripts/install.py test"], [], []]


def test_the_wheel_alone_runs_in_an_empty_folder(tmp_path, bench_environ):
    """Its dependencies are lent: a path file leads to those of these tests, behind the wheel's own package."""
    wheels, venv, here = (tmp_path / name for name in ("wheels", "venv", "here"))
    here.mkdir()
    python, environ = venv / "bin" / "python", bench_environ() | {"PYTHONPATH": ""}

    def ran(words, folder=here):
        return subprocess.check_output(words.split(), text=True, cwd=folder, env=environ)

    ran(f"{sys.executable} -m hatchling build --target wheel --directory {wheels}", ROOT)
    ran(f"{sys.executable} -m venv --without-pip {venv}")
    ran(f"{sys.executable} -m pip --python {python} install --no-deps --no-index {next(wheels.iterdir())}")
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text("\n".join(path for path in sys.path if Path(path).name == "site-packages"))
    flags = "--filter model=mlp,device=cpu,batch_size=1000,variant=eager --epochs 1 --seeds 1 --offline --format csv"
    assert ",ok," in ran(f"{venv}/bin/mnist-bench run {flags}").splitlines()[1]
    assert [path.name for path in here.iterdir()] == ["results"]
    (here / "where.py").write_text("import mnist_bench; print(mnist_bench.__file__)")
    assert Path(ran(f"{python} where.py").strip()).is_relative_to(venv)
