# Added and removed capabilities, on a read-only root file system.
#
#   nomad job run example/capabilities.nomad
#   nomad alloc exec ALLOC capsh --print        (capsh is in libcap2-bin)

variable "image" {
  default = "docker.io/library/ubuntu:24.04"
}

job "capabilities" {
  datacenters = ["dc1"]
  type        = "service"

  group "capabilities" {
    task "capabilities" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image           = var.image
        command         = "sleep"
        args            = ["600s"]
        readonly_rootfs = true
        cap_add         = ["CAP_SYS_ADMIN", "CAP_IPC_OWNER", "CAP_IPC_LOCK"]
        cap_drop        = ["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_DAC_OVERRIDE"]
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
