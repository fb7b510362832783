# System calls filtered by a profile of the operator's, in Docker's JSON.
#
# The driver's seccomp_profile_dir says where profiles lie: /opt/seccomp, if nothing else is said.
# Conditions in a profile, such as includes and excludes by capability, are looked at with the
# capabilities that the task has.

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
