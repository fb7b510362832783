# A first job: prints five lines and ends.
#
#   ./dev demo                                  with a containerd and an image of the demo's own
#   containerd-driver run example/hello.nomad   on this machine's containerd
#   nomad job run example/hello.nomad           on a Nomad client with this driver

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
