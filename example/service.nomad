# A task that runs until a stop, and prints a last line after the stop signal.
#
#   containerd-driver run --stats example/service.nomad
#
# Ctrl-C sends kill_signal; the task has kill_timeout to end. A second Ctrl-C kills the task at once.

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

job "service" {
  datacenters = ["dc1"]
  type        = "service"

  group "service" {
    task "clock" {
      driver       = "containerd-driver"
      kill_signal  = "SIGINT"
      kill_timeout = "10s"

      config {
        image   = var.image
        command = "/bin/sh"
        args    = ["-c", "trap 'echo goodbye; exit 0' INT; while :; do date; sleep 1 & wait $!; done"]
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }
  }
}
