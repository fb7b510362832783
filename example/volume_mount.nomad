# A host volume at two paths, read-only at the second. The agent's configuration declares the volume:
#
#   client {
#     host_volume "s1" {
#       path = "/srv/s1"
#     }
#   }
#
# Without an agent: containerd-driver run --host-volume s1=/srv/s1 example/volume_mount.nomad

variable "image" {
  default = "docker.io/library/ubuntu:24.04"
}

job "volume_mount" {
  datacenters = ["dc1"]
  type        = "service"

  group "volume_mount" {
    volume "shared" {
      type   = "host"
      source = "s1"
    }

    task "volume_mount" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image   = var.image
        command = "sleep"
        args    = ["600s"]
      }

      volume_mount {
        volume      = "shared"
        destination = "/tmp/t1"
      }

      volume_mount {
        volume      = "shared"
        destination = "/tmp/read_only_target"
        read_only   = true
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
