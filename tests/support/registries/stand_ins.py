"""Stand-in images for the public images of the examples, built from busybox and scripts."""

from __future__ import annotations

from tests.support.registries import images

_REDIS = r"""#!/bin/sh
echo "* Ready to accept connections"
trap 'echo "bye bye"; exit 0' TERM INT
while :; do sleep 600 & wait $!; done
"""

# Output of libcap's `capsh --print` about the running process, as far as tests read the output.
_CAPSH = r"""#!/bin/sh
names='chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap
linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module
sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time
sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog
wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore'
named() {
  mask=$((0x$(grep "^$1:" /proc/self/status | cut -f 2))) number=0 list=
  for name in $names; do
    [ $(((mask >> number) & 1)) = 1 ] && list="$list,cap_$name"
    number=$((number + 1))
  done
  while [ $number -lt 63 ]; do
    [ $(((mask >> number) & 1)) = 1 ] && list="$list,$number"
    number=$((number + 1))
  done
  echo "${list#,}"
}
[ "$1" = --print ] || exit 1
echo "Current: $(named CapEff)"
echo "Bounding set =$(named CapBnd)"
"""

# Prints the configuration.
_MOSQUITTO = r"""#!/bin/sh
[ "$1" = -c ] && while read -r line; do echo "config: $line"; done <"$2"
trap 'exit 0' TERM
while :; do sleep 600 & wait $!; done
"""


def redis() -> images.Image:
    """Builds a stand-in for `redis`: a server with messages at start and end."""
    layer = images.busybox_layer({"bin/redis-server": (_REDIS, 0o755)})
    return images.build([layer], {"Cmd": ["redis-server"], "ExposedPorts": {"6379/tcp": {}}})


def ubuntu() -> images.Image:
    """Builds a stand-in for `ubuntu`: a shell, also with the name of bash, and capsh."""
    layer = images.busybox_layer(
        {
            "bin/bash": ('#!/bin/sh\nexec sh "$@"\n', 0o755),
            "sbin": None,
            "sbin/capsh": (_CAPSH, 0o755),
        }
    )
    return images.build([layer], {"Cmd": ["/bin/bash"]})


def mosquitto() -> images.Image:
    """Builds a stand-in for `eclipse-mosquitto`, which prints its configuration."""
    return images.build([images.busybox_layer({"bin/mosquitto": (_MOSQUITTO, 0o755)})])
