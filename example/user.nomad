# A task of a user other than root. User names and the user's groups come from the image. group_add adds
# groups, by name or number.

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

variable "user" {
  default = "www-data"
}

job "user" {
  datacenters = ["dc1"]
  type        = "service"

  group "user" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    task "user" {
      driver       = "containerd-driver"
      user         = var.user
      kill_timeout = "1s"

      config {
        image     = var.image
        command   = "/bin/sh"
        args      = ["-c", "id; exec sleep 600"]
        group_add = ["2000"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
