# Name servers for one group, and kernel parameters of the task's own network.

variable "image" {
  default = "docker.io/library/ubuntu:24.04"
}

job "dns" {
  datacenters = ["dc1"]
  type        = "service"

  group "dns" {
    network {
      dns {
        servers  = ["127.0.0.1", "127.0.0.2"]
        searches = ["internal.corp"]
        options  = ["ndots:2"]
      }
    }

    task "dns" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image   = var.image
        command = "sleep"
        args    = ["600s"]

        sysctl = {
          "net.core.somaxconn"  = "16384"
          "net.ipv4.ip_forward" = "1"
        }
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
