# The configuration of a Nomad agent in a container: server and client together, on loopback.

data_dir   = "/opt/nomad/data" # the same path on the machine
plugin_dir = "/opt/containerd-driver/plugins"
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
  config {}
}
