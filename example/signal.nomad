# A task that prints every signal, and ends at SIGTERM.
#
#   nomad job run example/signal.nomad
#   nomad alloc signal -s SIGUSR1 ALLOC
#   nomad alloc logs ALLOC

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

job "signal" {
  datacenters = ["dc1"]
  type        = "service"

  group "signal" {
    task "signal" {
      driver = "containerd-driver"

      config {
        image   = var.image
        command = "/bin/sh"
        args    = ["/local/handler.sh"]
      }

      template {
        destination = "local/handler.sh"
        data        = <<-EOT
          for name in HUP INT QUIT USR1 USR2 WINCH; do
            trap "echo got SIG$name" $name
          done
          trap 'echo got SIGTERM; exit 0' TERM
          echo ready
          while :; do
            sleep 600 &
            wait $!
            kill $!
          done
        EOT
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
