# A task that holds memory and uses a whole processor, to show the statistics of Nomad.
#
#   nomad job run -var megabytes=48 example/stress.nomad
#   nomad alloc status -stats ALLOC

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

variable "megabytes" {
  type    = number
  default = 32
}

job "stress" {
  datacenters = ["dc1"]
  type        = "service"

  group "stress" {
    restart {
      attempts = 5
      interval = "10m"
      delay    = "30s"
      mode     = "fail"
    }

    task "stress" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image   = var.image
        command = "/bin/sh"

        # dd keeps its buffer in memory until sleep reads it, which never happens.
        args = ["-c", "dd if=/dev/zero bs=${var.megabytes}M count=1 | sleep 600 & while :; do :; done"]
      }

      resources {
        cpu    = 200
        memory = 64
      }
    }
  }
}
