"""What all tests of the kernel share: the toy plugin, a cache of their own, and a clean selection."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(Path(__file__).parent / "toy"), str(Path(__file__).parent / "servers")]
sys.path.append(str(Path(__file__).parent))  # for documents


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HELIX_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        for name in ("HELIX_PLUGINS", "HELIX_PLUGINS_DISABLED"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _temporary_modules_are_forgotten(tmp_path_factory):
    """Forget what a test imported from its folder: another test's folder may hold a module of that name."""
    before = set(sys.modules)
    yield
    temporary = str(tmp_path_factory.getbasetemp())
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(temporary):
            del sys.modules[name]


@pytest.fixture
def example() -> Path:
    """The config of the quick start."""
    return ROOT / "docs/examples/ssm-byte-lm.toml"


@pytest.fixture
def fresh_kernel():
    """Forget the default kernel before and after, since a test changes what is installed."""
    from helix_kernel import default_kernel

    default_kernel.cache_clear()
    yield
    default_kernel.cache_clear()


@pytest.fixture
def helix(fresh_kernel, capsys):
    """Run the `helix` command in this process; returns exit code, standard output and error."""
    from helix_kernel.cli import main

    def run(*arguments):
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        return exit_info.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def python():
    """Run a program in a process of its own; returns what it printed."""

    def run(code, *path, **environment):
        search = os.pathsep.join(map(str, path))
        finished = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": search, **environment},
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout.strip()

    return run


@pytest.fixture
def write(tmp_path):
    """Write a config; returns its path."""

    def run(text, name="config.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return run


@pytest.fixture(scope="session")
def object_server():
    """An S3 server on loopback, to which the environment points."""
    from object_server import ObjectServer

    server = ObjectServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield server
    server.stop()


@pytest.fixture
def bucket(object_server):
    """The URL of a run in a new bucket."""
    object_server.behave()
    name = object_server.make_bucket()
    object_server.requests.clear()
    yield f"s3://{name}/run/checkpoints"
    object_server.behave()
