# A task that exceeds its memory limit: the kernel kills the task, and an event names the reason.

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

job "oom" {
  datacenters = ["dc1"]
  type        = "batch"

  group "oom" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "oom" {
      driver = "containerd-driver"

      config {
        image   = var.image
        command = "tail"
        args    = ["/dev/zero"]
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }
  }
}
