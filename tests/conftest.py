"""In every test: eight CPU devices, no key used twice, no rank promotion, no sockets."""

import importlib.metadata
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

# Before jax is imported anywhere: it reads these once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8").strip()
# Compiling takes most of the tests' time, more than half of it XLA's optimisations and the newer of
# its two ways to compile a fusion. 0 runs them with these. A jaxlib that lacks a flag ends the process.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

import jax
import pytest

jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Fixtures that the tests of several folders use.
pytest_plugins = (
    "tests.checkpoint_fixtures",
    "tests.small_world",
    "tests.scripted_agent",
    "tests.tiny_runs",
    "tests.toy_world",
)

_getaddrinfo = socket.getaddrinfo


def _refuse_beyond_loopback(host: object) -> None:
    if isinstance(host, bytes):
        host = host.decode()
    if host not in (None, "", "::1", "localhost") and not str(host).startswith("127."):
        raise OSError(f"tests use no network beyond loopback, but something asked for {host}")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that leaves this machine is an error of the test."""

    def guarded(method):
        def call(self, *arguments):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                _refuse_beyond_loopback(arguments[-1][0])  # the address comes last
            return method(self, *arguments)

        return call

    def guarded_getaddrinfo(host, *arguments, **options):
        _refuse_beyond_loopback(host)
        return _getaddrinfo(host, *arguments, **options)

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    monkeypatch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)


@pytest.fixture(autouse=True, scope="module")
def compiled_programs_are_let_go() -> Iterator[None]:
    """JAX keeps every compiled program. Each takes hundreds of memory maps, of which Linux gives a
    process 65,530 (vm.max_map_count); then XLA's next compilation fails, and the process with it.
    Kept up to a third of that, they serve the next files, too."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture(autouse=True, scope="session")
def programs_hear_ctrl_c() -> Iterator[None]:
    """A background job of a shell ignores Ctrl-C, and so would what the tests start: the system
    passes on that a signal is ignored, but not a handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def eagle_data() -> Path:
    """The folder of real data that EAGLE_DATA names; the test is skipped without it."""
    folder = os.environ.get("EAGLE_DATA")
    if not folder:
        pytest.skip("EAGLE_DATA is not set: it names the folder with MovieLens and the like")
    return Path(folder)
