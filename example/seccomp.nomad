# A system call filter by a profile of the operator, in Docker's JSON.
#
# Profiles lie in the directory of the driver's option seccomp_profile_dir, by default /opt/seccomp.
# Conditions in a profile, such as includes and excludes by capability, apply to the capabilities of the
# task.

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

variable "profile" {
  default = "/opt/seccomp/seccomp.json"
}

variable "cap_add" {
  type    = list(string)
  default = []
}

job "seccomp" {
  datacenters = ["dc1"]
  type        = "service"

  group "seccomp" {
    task "seccomp" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image           = var.image
        command         = "sleep"
        args            = ["600"]
        seccomp         = true
        seccomp_profile = var.profile
        cap_add         = var.cap_add
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
