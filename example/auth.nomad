# A private image, with the user and password of its registry.
#
#   nomad job run -var image=registry.example.com/team/app:1 \
#     -var username=me -var password=secret example/auth.nomad
#
# Without user and password the registry refuses the pull. Nomad tries the job again every nine seconds.

variable "image" {
  default = "registry.example.com/team/app:1"
}

variable "username" {
  default = ""
}

variable "password" {
  default = ""
}

job "auth" {
  datacenters = ["dc1"]
  type        = "service"

  group "auth" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      delay          = "9s"
      delay_function = "constant"
      unlimited      = true
    }

    task "auth" {
      driver       = "containerd-driver"
      kill_timeout = "1s"

      config {
        image   = var.image
        command = "sleep"
        args    = ["600s"]

        auth {
          username = var.username
          password = var.password
        }
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }
  }
}
