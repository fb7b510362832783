"""The driver's own AppArmor profile, with the effect of Docker's default profile.

AppArmor has no exception from a `deny` rule. So each path that stays writable, such as
/proc/sys/kernel/shm*, is spelled letter by letter in the rules for its neighbours.
"""

from __future__ import annotations

from collections.abc import Container

NAME = "containerd-driver-default"
"""Name of the profile, a value of the driver's option `default_apparmor`."""

UNCONFINED = "unconfined"
"""AppArmor's name for a process without a profile."""

ABI, TUNABLES, BASE = "abi/3.0", "tunables/global", "abstractions/base"
FILES = (ABI, TUNABLES, BASE)
"""Files below /etc/apparmor.d that the profile includes where they exist."""

_RULES = """\
  network,
  unix,
  capability,
  file,
  umount,
  deny mount,

  # Signals and traces stay among the processes with this profile. The runtime and the driver may
  # send signals from outside, and read /proc/<pid> of a task.
  signal (send, receive) peer={name},
  signal (receive) peer={{{senders}}},
  ptrace (read, readby, trace, tracedby) peer={name},
  ptrace (readby, tracedby) peer={{{senders}}},

  # Of /proc, only directories of processes and the limits of shared memory are writable.
  deny @{{PROC}}/[a-zA-Z]* w,
  deny @{{PROC}}/[a-rt-zA-Z]*/** w,
  deny @{{PROC}}/s[^y]*/** w,
  deny @{{PROC}}/sys/[^k]** w,
  deny @{{PROC}}/sys/kernel/[^s]** w,
  deny @{{PROC}}/sys/kernel/s[^h]** w,
  deny @{{PROC}}/sys/kernel/sh[^m]** w,
  deny @{{PROC}}/kcore mrwklx,
  deny @{{PROC}}/sysrq-trigger mrwklx,

  # Of /sys, only cgroups are writable; some files reveal the host.
  deny /sys/[^f]** wklx,
  deny /sys/f[^s]** wklx,
  deny /sys/fs/[^c]** wklx,
  deny /sys/fs/c[^g]** wklx,
  deny /sys/fs/cg[^r]** wklx,
  deny /sys/firmware/** mrwklx,
  deny /sys/kernel/security/** mrwklx,
  deny /sys/devices/virtual/powercap/** mrwklx,
"""


def profile(driver: str, existing: Container[str]) -> str:
    """Returns the text of the profile for `apparmor_parser`. Pure.

    Args:
        driver: name of the profile of the driver's own process.
        existing: the members of `FILES` that this machine has.
    """
    senders = ",".join(dict.fromkeys((UNCONFINED, "runc", "crun", driver)))
    lines = [
        f"# Profile {NAME} of containerd-driver, written at each start of the plugin.",
        f"abi <{ABI}>," if ABI in existing else "",
        f"#include <{TUNABLES}>" if TUNABLES in existing else "@{PROC}=/proc/",
        f"profile {NAME} flags=(attach_disconnected,mediate_deleted) {{",
        f"  #include <{BASE}>" if BASE in existing else "",
        f"{_RULES.format(name=NAME, senders=senders)}}}",
    ]
    return "".join(f"{line}\n" for line in lines if line)
