# A web server on a bridge network, published on a port of this machine.
#
#   containerd-driver run example/bridge.nomad
#
# prints the address, such as `port http: 127.0.0.1:25123 -> 8080`. Read the page, then stop with Ctrl-C:
#
#   curl http://127.0.0.1:25123/
#
# The tasks of the group share the network: the visitor reaches the server on loopback.

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

job "bridge" {
  datacenters = ["dc1"]
  type        = "service"

  group "web" {
    network {
      mode = "bridge"

      port "http" {
        to = 8080
      }
    }

    task "server" {
      driver = "containerd-driver"

      config {
        image   = var.image
        command = "/bin/sh"
        args    = ["-c", "trap 'exit 0' TERM; busybox httpd -f -p $NOMAD_PORT_http -h /local & wait"]
      }

      template {
        destination = "local/index.html"
        data        = <<-EOT
          hello from {{ env "NOMAD_ALLOC_NAME" }}, which is {{ env "NOMAD_ADDR_http" }} outside
        EOT
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }

    task "visitor" {
      driver = "containerd-driver"

      config {
        image   = var.image
        command = "/bin/sh"
        args    = ["-c", "trap 'exit 0' TERM; until wget -qO- http://127.0.0.1:$NOMAD_PORT_http/; do sleep 0.3; done; sleep 86400 & wait"]
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }
  }
}
