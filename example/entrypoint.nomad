# entrypoint replaces the image's ENTRYPOINT and CMD; args follow the entrypoint.

variable "image" {
  default = "docker.io/library/ubuntu:24.04"
}

job "entrypoint" {
  datacenters = ["dc1"]
  type        = "service"

  group "entrypoint" {
    task "entrypoint" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image      = var.image
        entrypoint = ["/bin/bash"]
        args       = ["-c", "while :; do for i in 1 2 3; do echo container$i; sleep 0.2; done; done"]
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
