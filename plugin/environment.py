"""The only place that reads the process's environment."""

from __future__ import annotations

import os

MAGIC_COOKIE_KEY = "NOMAD_PLUGIN_MAGIC_COOKIE"
# Nomad's plugins/base/plugin.go; every agent since 0.9 sets it.
MAGIC_COOKIE = "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255"

_PROXY_KEYS = (
    *("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"),
    *("NO_PROXY", "no_proxy"),
)
_HOST_KEY = "CONTAINERD_DRIVER_HOST"


def launched_by_nomad() -> bool:
    """Returns whether the magic cookie of a Nomad agent is there."""
    return os.environ.get(MAGIC_COOKIE_KEY) == MAGIC_COOKIE


def wants_tls() -> bool:
    """Whether the host asks for go-plugin's AutoMTLS, which Nomad never does for drivers."""
    return bool(os.environ.get("PLUGIN_CLIENT_CERT"))


def quiet_grpc() -> None:
    """Keeps gRPC's C core from writing to stderr, which is the agent's log; before grpc loads.

    Fork support is off too: the plugin never forks, and its handlers cost at every Popen.
    """
    os.environ["GRPC_VERBOSITY"] = "NONE"
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def variable(name: str, default: str = "") -> str:
    """One variable."""
    return os.environ.get(name, default)


def proxies() -> dict[str, str]:
    """The variables that name proxies, as they are; their values may have passwords."""
    return {name: os.environ[name] for name in _PROXY_KEYS if os.environ.get(name)}


def host_pid() -> int:
    """The embedded host that this plugin is to end with; 0 under a Nomad agent."""
    text = os.environ.get(_HOST_KEY, "")
    return int(text) if text.isdecimal() else 0


def for_plugin_of_this_process() -> dict[str, str]:
    """The environment of a plugin that ends with us."""
    return {**for_plugin(), _HOST_KEY: str(os.getpid())}


def for_plugin() -> dict[str, str]:
    """The environment that a Nomad agent gives a plugin: its own, and go-plugin's four.

    systemd listens to this process, not to those that it starts.
    """
    own = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return {
        **own,
        MAGIC_COOKIE_KEY: MAGIC_COOKIE,
        "PLUGIN_MIN_PORT": "10000",
        "PLUGIN_MAX_PORT": "25000",
        "PLUGIN_PROTOCOL_VERSIONS": "2",
    }
