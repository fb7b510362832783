# Two tasks of one group: both share /alloc, each has its own /local.
# The reader ends after the writer's last line.

variable "image" {
  default = "docker.io/library/busybox:1.36"
}

job "pair" {
  datacenters = ["dc1"]
  type        = "batch"

  group "pair" {
    task "writer" {
      driver = "containerd-driver"

      config {
        image   = var.image
        command = "/bin/sh"
        args    = ["-c", "for i in 1 2 3; do echo \"line $i\" >>/alloc/data/lines; sleep 0.3; done; echo end >>/alloc/data/lines; echo wrote three lines"]
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }

    task "reader" {
      driver = "containerd-driver"

      config {
        image   = var.image
        command = "/bin/sh"
        args    = ["/local/read.sh"]
      }

      template {
        destination = "local/read.sh"
        data        = <<-EOT
          echo "{{ env "NOMAD_TASK_NAME" }} of {{ env "NOMAD_JOB_NAME" }} reads"
          touch /alloc/data/lines
          seen=0 line=
          until [ "$line" = end ]; do
            line=$(tail -n +$((seen + 1)) /alloc/data/lines | head -n 1)
            if [ -n "$line" ]; then
              seen=$((seen + 1))
              echo "read: $line"
            else
              sleep 0.1
            fi
          done
        EOT
      }

      resources {
        cpu    = 100
        memory = 32
      }
    }
  }
}
