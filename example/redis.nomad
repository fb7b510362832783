# A server with a host name, a working directory, a system call filter and a memory limit of its own.
#
#   nomad job run example/redis.nomad
#
# The scheduler reserves `memory`; the task may use up to `memory_max` while the node has memory to spare.
# Nomad allows memory_max if the scheduler's configuration has MemoryOversubscriptionEnabled.

variable "image" {
  default = "docker.io/library/redis:7-alpine"
}

job "redis" {
  datacenters = ["dc1"]
  type        = "service"

  group "redis" {
    task "redis" {
      driver = "containerd-driver"

      config {
        image    = var.image
        hostname = "foobar"
        seccomp  = true
        cwd      = "/home/redis"
      }

      resources {
        cpu        = 500
        memory     = 256
        memory_max = 512
      }
    }
  }
}
