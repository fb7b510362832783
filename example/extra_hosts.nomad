# Additional names in /etc/hosts, in the host's network.

variable "image" {
  default = "docker.io/library/ubuntu:24.04"
}

job "extra_hosts" {
  datacenters = ["dc1"]
  type        = "service"

  group "extra_hosts" {
    task "extra_hosts" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image        = var.image
        command      = "sleep"
        args         = ["600s"]
        host_network = true
        extra_hosts  = ["postgres:127.0.1.1", "redis:127.0.1.2"]
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
