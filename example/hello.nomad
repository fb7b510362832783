# A first job: says hello five times and ends.
#
#   ./dev demo                                  runs it with everything it needs
#   nomad job run example/hello.nomad           runs it on a Nomad client with this driver
#
# The image lies in the demo's registry on loopback. With a network, any image does:
#   image = "docker.io/library/busybox:1.36"

variable "image" {
  default = "127.0.0.1:5000/hello:1"
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
