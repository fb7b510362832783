# A present image starts without the registry. pull is always, missing or never.

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

variable "pull" {
  default = "missing"
}

job "offline" {
  datacenters = ["dc1"]
  type        = "service"

  group "offline" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "offline" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image             = var.image
        image_pull_policy = var.pull
        command           = "sleep"
        args              = ["600"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
