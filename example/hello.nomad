# A first job: says hello five times and ends.
#
#   ./dev demo                                  runs it with everything it needs, an image too
#   containerd-driver run example/hello.nomad   runs it on this machine
#   nomad job run example/hello.nomad           runs it on a Nomad client with this driver

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

job "hello" {
  datacenters = ["dc1"]
  type        = "batch"

  group "hello" {
    task "hello" {
      driver = "containerd-driver"

      config {
        image   = "${var.image}"
        command = "/bin/sh"
        args    = ["-c", "for i in 1 2 3 4 5; do echo \"hello $i from $NOMAD_TASK_NAME, $(hostname)\"; sleep 0.3; done"]
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
