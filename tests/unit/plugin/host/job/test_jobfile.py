"""Job files, HCL and JSON: values, refusals and the texts of the refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin.host.job import hcl_text, jobfile
from plugin.host.job.jobfile import Job, JobTask, Template
from plugin.host.job.network import GroupNetwork, Port
from proto.errors import DriverError

EXAMPLES = Path(__file__).resolve().parents[5] / "example"


def job(body: str, **variables: str) -> Job:
    """Returns a job with a single group and the task `t`; the task has `body`."""
    text = f'job "j" {{\n group "g" {{\n task "t" {{\n driver = "d"\n{body}\n}}\n}}\n}}\n'
    return jobfile.parse("j.nomad", text, variables)


def task(body: str) -> JobTask:
    return job(body).groups[0].tasks[0]


def refused(text: str, **variables: str) -> str:
    with pytest.raises(DriverError) as error:
        jobfile.parse("j.nomad", text, variables)
    return str(error.value)


def refused_task(body: str) -> str:
    with pytest.raises(DriverError) as error:
        job(body)
    return str(error.value)


def test_a_whole_job_is_read() -> None:
    text = """
    job "web" {
      datacenters = ["here", "there"]
      region      = "eu"
      namespace   = "prod"
      type        = "service"
      meta { owner = "ops" }

      group "front" {
        count = 3
        meta { tier = 1 }
        network {
          mode = "host"
          port "http" { static = 8080 }
        }
        task "server" {
          driver       = "containerd-driver"
          user         = "1000:1000"
          kill_timeout = "1m30s"
          kill_signal  = "SIGINT"
          config {
            image = "127.0.0.1:5000/web:1"
            args  = ["-p", "${NOMAD_PORT_http}"]
          }
          env {
            NUMBER = 5
            TRUTH  = true
            NONE   = null
          }
          resources {
            cpu        = 250
            memory     = 64
            memory_max = 128
          }
          template {
            data        = "x"
            destination = "local/x"
            perms       = "600"
          }
        }
        task "helper" { driver = "containerd-driver" }
      }
    }
    """
    web = jobfile.parse("web.nomad", text, {})
    assert (web.id, web.datacenter, web.region, web.namespace) == ("web", "here", "eu", "prod")
    assert web.meta == {"owner": "ops"}
    assert web.task_count == 6
    (front,) = web.groups
    assert (front.name, front.count, front.meta) == ("front", 3, {"tier": "1"})
    assert front.network == GroupNetwork(ports=(Port(label="http", static=8080),))
    server, helper = front.tasks
    assert (server.user, server.kill_timeout_s, server.kill_signal) == ("1000:1000", 90.0, "SIGINT")
    assert (server.cpu_mhz, server.memory_mb, server.memory_max_mb) == (250, 64, 128)
    assert server.env == {"NUMBER": "5", "TRUTH": "true"}
    assert server.config == {
        "image": "127.0.0.1:5000/web:1",
        "args": ["-p", "${NOMAD_PORT_http}"],
    }
    assert server.templates == (Template(data="x", destination="local/x", permissions=0o600),)
    assert (helper.cpu_mhz, helper.memory_mb, helper.kill_timeout_s) == (100, 300, 5.0)


def test_strings_lose_their_escapes_and_keep_their_quotes() -> None:
    env = task(r'env { A = "x \"q\" \\ \n\té \u00e9 # no // comment" }').env
    assert env == {"A": 'x "q" \\ \n\té é # no // comment'}


def test_a_string_of_two_quotes_keeps_the_quotes() -> None:
    assert task(r'env { A = "\"\"" }').env == {"A": '""'}


def test_a_heredoc_keeps_every_character_and_its_last_line_end() -> None:
    body = 'template {\n destination = "local/x"\n data = <<EOH\n a "b" \\n {{ env "C" }}\n\nEOH\n}'
    assert task(body).templates[0].data == ' a "b" \\n {{ env "C" }}\n\n'


def test_an_indented_heredoc_loses_the_margin_only() -> None:
    body = 'template {\n destination = "local/x"\n data = <<-EOH\n    a\n      b\n    EOH\n}'
    assert task(body).templates[0].data == "a\n  b\n"


def test_comments_of_all_three_forms_are_skipped() -> None:
    body = '# one "\n// two <<EOH\n/* three\n "four */\nuser = "u" # five'
    assert task(body).user == "u"


def test_an_env_may_be_a_block_or_a_map_and_keys_may_be_quoted() -> None:
    assert task('env = { A = "b", "C.d" = 1 }').env == {"A": "b", "C.d": "1"}


def test_variables_and_locals_are_put_in_place() -> None:
    text = """
    variable "image" { default = "i:1" }
    variable "n" { type = number }
    variable "list" {
      type    = list(string)
      default = []
    }
    locals {
      who  = "the ${var.image}"
      both = ["${local.who}", local.who]
    }
    job "j" {
      group "g" {
        count = var.n
        task "t" {
          driver = "d"
          config {
            image = var.image
            args  = local.both
            more  = var.list
            text  = "-${var.n}-"
          }
        }
      }
    }
    """
    read = jobfile.parse("j", text, {"n": "2", "list": '["a"]', "image": "i:${x}"})
    assert read.groups[0].count == 2
    assert read.groups[0].tasks[0].config == {
        "image": "i:${x}",
        "args": ["the i:${x}", "the i:${x}"],
        "more": ["a"],
        "text": "-2-",
    }


def test_a_variable_of_the_environment_counts_below_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NOMAD_VAR_a", "env")
    text = 'variable "a" {}\njob "j" {\n task "t" {\n driver = "d"\n user = var.a\n}\n}'
    assert jobfile.parse("j", text, {}).groups[0].tasks[0].user == "env"
    assert jobfile.parse("j", text, {"a": "line"}).groups[0].tasks[0].user == "line"


def test_variables_without_a_value_and_values_without_a_variable_are_named() -> None:
    assert 'variable "a" has no value (set --var a=…)' in refused('variable "a" {}')
    assert 'has no variable "b" (variables of the file: none)' in refused('job "j" {}', b="1")
    assert 'has no variable "b" (variables of the file: a)' in refused(
        'variable "a" {default = 1}', b="1"
    )


def test_locals_that_define_each_other_are_refused() -> None:
    text = 'locals {\n a = local.b\n b = local.a\n}\njob "j" {\n region = local.a\n}'
    assert "local.a refers to itself" in refused(text)


def test_references_that_wait_for_the_task_stay_as_they_are() -> None:
    value = '${NOMAD_TASK_DIR} ${env["HOME"]} ${node.datacenter} ${attr.kernel.name} ${meta.x}'
    assert task(f'env {{ A = "{value}" }}').env == {"A": value}


def test_a_doubled_dollar_is_for_the_shell() -> None:
    assert task('env { A = "$${HOME} %%{x}" }').env == {"A": "${HOME} %{x}"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"${HOME}"', "for a variable of the shell write $${HOME}"),
        ('upper("a")', '${upper("a")} cannot be evaluated without Nomad'),
        ("1 > 2 ? 3 : 4", "cannot be evaluated without Nomad"),
        ('"%{ if true }x%{ endif }"', "only plain references"),
        ("local.nothing", "local.nothing is not defined"),
    ],
)
def test_expressions_that_only_nomad_evaluates_are_refused(value: str, words: str) -> None:
    assert words in refused_task(f"user = {value}")


def test_every_problem_of_a_job_is_reported_at_once() -> None:
    problems = refused_task(
        'drivr = "d"\nkill_timeout = "soon"\nartifact {}\nresources { cpu = "much" }\n'
        'template { destination = "x" }\nleader = true'
    )
    assert problems == (
        'j.nomad: task "t": no such key "drivr", did you mean "driver"?;'
        ' task "t": artifact needs a Nomad agent;'
        " task \"t\": cpu 'much' is not a whole number from 0 to 1099511627776;"
        ' task "t": kill_timeout: invalid duration "soon", write it like "30s", "5m" or "1h30m";'
        ' task "t": template: data is missing'
    )


def test_keys_that_only_nomad_obeys_are_ignored_by_name() -> None:
    read = job('restart { attempts = 1 }\nservice { name = "x" }\nlogs { max_files = 1 }')
    assert read.ignored == ("logs", "restart", "service")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file has 0 job blocks instead of one"),
        ('job "a" {}\njob "b" {}', "2 job blocks"),
        ('job "a" {}', 'job "a": has no group'),
        ('job "a" {\n group "g" {}\n}', 'group "g": has no task'),
        ('jobs "a" {}', 'no such key "jobs", did you mean "job"?'),
        ('job "a" {\n x = \n}', "j.nomad:2: not HCL: x ="),
        ('job "a" {', "a closing brace is missing"),
        ('job "a {}', "line 1: the string has no closing quote"),
        ('x = "\\q"', "line 1: \\q is not an escape of HCL"),
        ("\n\nx = <<EOH\n", "line 3: the heredoc has no closing line EOH"),
        ('x = "${a', "line 1: ${ has no closing brace"),
        (
            'job "a" {\n group "g" {\n count = -1\n task "t" {}\n}\n}',
            "count -1 is not a whole number from 0 to 1000",
        ),
        ('job "a" {\n task "../x" {}\n}', "invalid task name"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, words: str) -> None:
    assert words in refused(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="none: cannot be read: No such file"):
        jobfile.load(tmp_path / "none", {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DriverError, match="not UTF-8 text"):
        jobfile.load(tmp_path / "binary", {})


def test_a_task_directly_in_the_job_is_a_group_of_its_own() -> None:
    read = jobfile.parse("j", 'job "j" {\n task "t" { driver = "d" }\n}', {})
    assert [(group.name, group.count) for group in read.groups] == [("t", 1)]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.nomad")), ids=lambda path: path.name)
def test_every_example_is_a_job_for_this_driver(path: Path) -> None:
    read = jobfile.load(path, {})
    assert set(read.ignored) <= {"restart", "reschedule"}
    assert {t.driver for group in read.groups for t in group.tasks} == {"containerd-driver"}
    for group in read.groups:
        for entry in group.tasks:
            # A public image, or an image of the reserved example domain.
            registries = ("docker.io/", "registry.example.com/")
            assert entry.config["image"].startswith(registries)


def test_the_mask_keeps_line_numbers() -> None:
    text = 'a = <<EOH\nx\ny\nEOH\n/* c\n c */\nb = "\\n"\nhere'
    assert hcl_text.mask(text).text.split("\n").index("here") == text.split("\n").index("here")


def test_masked_characters_are_restored() -> None:
    masked = hcl_text.mask(r'"a\"\\\n\u00e9${b["c"]}"').text
    assert "\\" not in masked
    assert hcl_text.unmask(masked) == '"a"\\\né${b["c"]}"'


def test_the_mask_knows_the_place_of_each_part() -> None:
    text = 'a /* x */ = "\\u00e9\\n${b}" # c\nd = <<-EOT\n  "x\n  EOT\ne = 1\n'
    masked = hcl_text.mask(text)
    for part in ("a", "=", "${b}", "d", "e = 1"):
        assert masked.place(masked.text.index(part)) == text.index(part)
    # The last quote of the masked heredoc stands for the last character of the closing line.
    assert masked.place(masked.text.rindex('"')) == text.rindex("EOT") + 2
