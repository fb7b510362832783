# The agent runs a script in the task whenever a template has changed.
#
#   nomad job run example/change_script.nomad
#   nomad var put nomad/jobs/change_script greeting=hello       (Nomad 1.4 and newer)
#   nomad alloc logs -f ALLOC

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

variable "path" {
  default = "nomad/jobs/change_script"
}

job "change_script" {
  datacenters = ["dc1"]
  type        = "service"

  group "change_script" {
    task "change_script" {
      driver = "containerd-driver"

      config {
        image   = var.image
        command = "/bin/sh"
        args    = ["-c", "trap 'exit 0' TERM; echo ready; touch /local/seen; while :; do cat /local/seen; sleep 0.2; done"]
      }

      template {
        destination = "local/greeting"
        data        = "{{ with nomadVar \"${var.path}\" }}{{ .greeting }}{{ end }}"
        change_mode = "script"

        change_script {
          command       = "/bin/sh"
          args          = ["-c", "echo \"seen: $(cat /local/greeting)\" >/local/seen"]
          timeout       = "10s"
          fail_on_error = true
        }
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
