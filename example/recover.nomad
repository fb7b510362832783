# Counts, also while the agent, the plugin or containerd is down. Kill one of these and read the log.
#
#   nomad job run example/recover.nomad
#   nomad alloc logs -f ALLOC
#
# The task ends with status 12 as soon as the file /alloc/data/end exists, and with 7 after a stop.

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

job "recover" {
  datacenters = ["dc1"]
  type        = "service"

  group "recover" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "counter" {
      driver = "containerd-driver"

      config {
        image   = var.image
        command = "/bin/sh"
        args    = ["/local/count.sh"]
      }

      template {
        destination = "local/count.sh"
        data        = <<-EOT
          trap 'echo stopped; exit 7' TERM
          number=0
          until [ -e /alloc/data/end ]; do
            echo "count $number"
            number=$((number + 1))
            sleep 0.1
          done
          echo ended
          exit 12
        EOT
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
