"""Configs of tasks, parsed by Nomad's own code of two versions with the schema of the plugin."""

from __future__ import annotations

import pytest

from tests.support.nomad.go_host import GoHost, HostError

pytestmark = [pytest.mark.nomad, pytest.mark.containerd]


def test_a_task_config_is_parsed_against_the_schema_with_its_defaults(
    nomad_host: GoHost, busybox_image: str
) -> None:
    parsed = nomad_host.call("parse", config_hcl=f'image = "{busybox_image}"')["config"]
    assert parsed["image"] == busybox_image
    assert parsed["cpu_cfs_period"] == 100000
    assert parsed["image_pull_timeout"] is None  # the plugin block may have another default
    assert parsed["command"] is None
    full = nomad_host.call(
        "parse",
        config_hcl="""
            image    = "i"
            command  = "c"
            args     = ["a", "b"]
            cwd      = "/tmp"
            hostname = "h"
            auth {
              username = "u"
              password = "p"
            }
        """,
    )["config"]
    assert full["args"] == ["a", "b"]
    assert full["auth"]["username"] == "u"


def test_the_config_of_a_docker_or_podman_job_is_parsed_in_each_of_its_forms(
    nomad_host: GoHost,
) -> None:
    parsed = nomad_host.call(
        "parse",
        config_hcl="""
            image      = "i"
            entrypoint = "one"
            shm_size   = 1048576
            devices    = ["/dev/null"]
            ulimit     = { nofile = "1:2", nproc = 3 }
            sysctl     = [{ "net.core.somaxconn" = "1" }]
            storage_opt {
              size = "1G"
            }
            labels {
              a = "b"
              c = true
            }
            healthchecks {
              disable = true
            }
            auth {
              email      = "a@b.c"
              tls_verify = true
            }
            logging {
              type = "json-file"
              config {
                max-file = "2"
              }
            }
            mounts = [
              {
                type         = "bind"
                source       = "local/x"
                target       = "/t"
                readonly     = true
                bind_options = [{ propagation = "rslave" }]
              }
            ]
            mount {
              type   = "tmpfs"
              target = "/m"
              tmpfs_options {
                size = 65536
              }
              volume_options {
                labels {
                  a = "b"
                }
                driver_config {
                  name = "local"
                }
              }
            }
        """,
    )["config"]
    assert parsed["entrypoint"] == "one"
    assert parsed["shm_size"] == "1048576"
    assert parsed["devices"] == ["/dev/null"]
    # The host reads HCL 1, which makes a list of each map; HCL 2 of an agent sends a map.
    assert parsed["ulimit"] == [{"nofile": "1:2", "nproc": 3}]
    assert parsed["sysctl"] == [{"net.core.somaxconn": "1"}]
    assert parsed["labels"] == [{"a": "b", "c": True}]
    assert parsed["storage_opt"] == [{"size": "1G"}]
    assert parsed["healthchecks"]["disable"] is True
    assert parsed["auth"]["email"] == "a@b.c"
    assert parsed["logging"]["config"] == [{"max-file": "2"}]
    assert parsed["mounts"][0]["bind_options"]["propagation"] == "rslave"
    assert parsed["mount"][0]["tmpfs_options"]["size"] == "65536"
    assert parsed["mount"][0]["volume_options"]["labels"] == [{"a": "b"}]


def test_a_wrong_task_config_is_refused_by_name(nomad_host: GoHost) -> None:
    for text, named in (
        ('image = "i"\nimgae = "i"', "imgae"),
        ('command = "c"', "image"),
        ('image = "i"\nargs = "no list"', "args"),
        ('image = ["i"]', "image"),
    ):
        with pytest.raises(HostError, match=named):
            nomad_host.call("parse", config_hcl=text)
