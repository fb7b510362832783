# A configuration file that Nomad writes, bound to the path that the program reads.
#
# The bind shows the file as of the task's start, because Nomad replaces the file at a change. If the file
# may change, bind its directory.

variable "image" {
  default = "docker.io/library/eclipse-mosquitto:2"
}

job "template" {
  datacenters = ["dc1"]
  type        = "service"

  group "template" {
    task "mosquitto" {
      driver = "containerd-driver"

      config {
        image   = var.image
        command = "mosquitto"
        args    = ["-c", "/mosquitto/config/mosquitto.conf"]

        mounts = [
          {
            type    = "bind"
            source  = "local/mosquitto.conf"
            target  = "/mosquitto/config/mosquitto.conf"
            options = ["rbind", "rw"]
          }
        ]
      }

      template {
        destination = "local/mosquitto.conf"
        data        = <<-EOT
          # of {{ env "NOMAD_TASK_NAME" }}
          listener 1883
          allow_anonymous true
        EOT
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
