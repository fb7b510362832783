# A task on gVisor: a kernel in user space, which answers most system calls itself.
#
# The node needs gVisor's runsc, and preferably its shim containerd-shim-runsc-v1. `containerd-driver
# doctor` lists the installed runtimes. The first line of the log is the version of the task's kernel.

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

job "gvisor" {
  datacenters = ["dc1"]
  type        = "service"

  group "gvisor" {
    task "gvisor" {
      driver = "containerd-driver"

      config {
        image   = var.image
        runtime = "io.containerd.runsc.v1"
        command = "/bin/sh"
        args    = ["-c", "trap 'exit 9' TERM; cat /proc/version; while :; do sleep 0.2; done"]
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
