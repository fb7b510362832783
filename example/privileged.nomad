# A privileged task: all capabilities and devices of the host, two loop devices by name, and a bind of a
# host directory.
#
#   mkdir /tmp/s1 && echo hello >/tmp/s1/bind.txt
#   nomad job run example/privileged.nomad
#
# allow_privileged = false in the driver's config forbids such jobs.

variable "image" {
  default = "docker.io/library/ubuntu:24.04"
}

variable "source" {
  default = "/tmp/s1"
}

job "privileged" {
  datacenters = ["dc1"]
  type        = "service"

  group "privileged" {
    task "privileged" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image      = var.image
        command    = "sleep"
        args       = ["600s"]
        privileged = true
        devices    = ["/dev/loop0", "/dev/loop1"]

        mounts = [
          {
            type    = "bind"
            source  = var.source
            target  = "/tmp/t1"
            options = ["rbind", "ro"]
          }
        ]
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
