# A server with a name, a working directory, a system call filter and room in memory.
#
#   nomad job run example/redis.nomad
#
# memory is what it is sure to get, memory_max what it may take while others do not need it. An agent
# allows memory_max once MemoryOversubscriptionEnabled is set in its scheduler's configuration.

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
