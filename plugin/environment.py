"""Environment of the process. Only this module and `workers.launch.systemd` use `os.environ`."""

from __future__ import annotations

import os

MAGIC_COOKIE_KEY = "NOMAD_PLUGIN_MAGIC_COOKIE"
# Nomad's plugins/base/plugin.go; every agent since 0.9 sets this value.
MAGIC_COOKIE = "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255"

_PROXY_KEYS = (
    *("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"),
    *("NO_PROXY", "no_proxy"),
)
_DEV_HOST_KEY = "CONTAINERD_DRIVER_HOST"


def launched_by_nomad() -> bool:
    """Returns True if the environment has the magic cookie of a Nomad agent."""
    return os.environ.get(MAGIC_COOKIE_KEY) == MAGIC_COOKIE


def wants_tls() -> bool:
    """Returns True if the parent asks for go-plugin's AutoMTLS; Nomad never does for drivers."""
    return bool(os.environ.get("PLUGIN_CLIENT_CERT"))


def quiet_grpc() -> None:
    """Sets gRPC's variables; must run before the import of grpc.

    Logs of gRPC's C core would go to stderr, into the agent's log. The handlers of gRPC's fork
    support cost time at every Popen, and the plugin never forks.
    """
    os.environ["GRPC_VERBOSITY"] = "NONE"
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def variable(name: str, default: str = "") -> str:
    """Returns the value of a variable, or `default` if the variable is not set."""
    return os.environ.get(name, default)


def proxies() -> dict[str, str]:
    """Returns the non-empty proxy variables unchanged; a value may contain a password."""
    return {name: os.environ[name] for name in _PROXY_KEYS if os.environ.get(name)}


def dev_host_pid() -> int:
    """Returns the pid of the dev host that started the plugin; 0 under a Nomad agent."""
    text = os.environ.get(_DEV_HOST_KEY, "")
    return int(text) if text.isdecimal() else 0


def for_plugin_of_this_process() -> dict[str, str]:
    """Returns the environment of a plugin that ends with this process."""
    return {**for_plugin(), _DEV_HOST_KEY: str(os.getpid())}


def for_plugin() -> dict[str, str]:
    """Returns the environment that a Nomad agent gives a plugin.

    The environment is that of the agent, with four variables of go-plugin. NOTIFY_SOCKET is left
    out: systemd expects messages from this process, not from its children.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return {
        **inherited,
        MAGIC_COOKIE_KEY: MAGIC_COOKIE,
        "PLUGIN_MIN_PORT": "10000",
        "PLUGIN_MAX_PORT": "25000",
        "PLUGIN_PROTOCOL_VERSIONS": "2",
    }
