# A Nomad agent's configuration with this driver. The agent finds the driver in plugin_dir. An agent with
# other plugins keeps its own plugin_dir: see /usr/share/doc/nomad-driver-containerd/README.Debian.

data_dir   = "/opt/nomad/data"
plugin_dir = "/usr/lib/nomad-driver-containerd/plugins"
bind_addr  = "127.0.0.1"

advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}

server {
  enabled          = true
  bootstrap_expect = 1
}

client {
  enabled  = true
  cni_path = "/usr/lib/cni"
}

plugin "containerd-driver" {
  config {
    stats_interval   = "1s"
    allow_privileged = false

    gc {
      image_delay = "1h"
    }
  }
}
