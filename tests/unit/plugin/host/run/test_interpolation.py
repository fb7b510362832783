"""References in a job, environment of a task, templates, and plan of a job."""

from __future__ import annotations

import platform
import stat
from pathlib import Path

import pytest

from actors.model.nomad import PortMapping
from plugin.host.job.jobfile import Job, JobGroup, JobTask, Template
from plugin.host.network.ports import HostPorts
from plugin.host.run import alloc_plan, interpolation
from plugin.host.run.allocdir import AllocDir
from proto.errors import Code, DriverError

ALLOC = "0123456789abcdef"


def job_of(*tasks: JobTask, count: int = 1) -> Job:
    group = JobGroup(name="g", count=count, tasks=tasks, meta={"tier": "g"})
    return Job(id="j", name="the job", groups=(group,), meta={"tier": "j", "the-owner": "me"})


def environment(**fields: object) -> dict[str, str]:
    task = JobTask(name="t", driver="d", config={}, **fields)  # type: ignore[arg-type]
    job = job_of(task)
    port = PortMapping(label="http-x", value=8080, to=80, host_ip="127.0.0.1")
    return interpolation.environment(
        job, job.groups[0], task, interpolation.AllocIdentity(id=ALLOC, index=2, ports=(port,))
    )


def test_a_task_gets_nomads_variables() -> None:
    env = environment(cpu_mhz=5, memory_mb=6, memory_max_mb=7)
    assert env == {
        "NOMAD_ALLOC_DIR": "/alloc",
        "NOMAD_TASK_DIR": "/local",
        "NOMAD_SECRETS_DIR": "/secrets",
        "NOMAD_ALLOC_ID": ALLOC,
        "NOMAD_SHORT_ALLOC_ID": "01234567",
        "NOMAD_ALLOC_INDEX": "2",
        "NOMAD_ALLOC_NAME": "j.g[2]",
        "NOMAD_TASK_NAME": "t",
        "NOMAD_GROUP_NAME": "g",
        "NOMAD_JOB_ID": "j",
        "NOMAD_JOB_NAME": "the job",
        "NOMAD_DC": "dc1",
        "NOMAD_REGION": "global",
        "NOMAD_NAMESPACE": "default",
        "NOMAD_CPU_LIMIT": "5",
        "NOMAD_MEMORY_LIMIT": "6",
        "NOMAD_MEMORY_MAX_LIMIT": "7",
        "NOMAD_META_tier": "g",
        "NOMAD_META_TIER": "g",
        "NOMAD_META_the_owner": "me",
        "NOMAD_META_THE_OWNER": "me",
        "NOMAD_IP_http_x": "127.0.0.1",
        "NOMAD_PORT_http_x": "80",
        "NOMAD_ADDR_http_x": "127.0.0.1:8080",
        "NOMAD_HOST_IP_http_x": "127.0.0.1",
        "NOMAD_HOST_PORT_http_x": "8080",
        "NOMAD_HOST_ADDR_http_x": "127.0.0.1:8080",
        "NOMAD_ALLOC_PORT_http_x": "80",
    }


def test_without_a_memory_max_the_variable_is_missing() -> None:
    assert "NOMAD_MEMORY_MAX_LIMIT" not in environment()
    assert "NOMAD_MEMORY_MAX_LIMIT" not in environment(memory_max_mb=-1)


def test_the_jobs_own_variables_win_and_may_refer_to_nomads() -> None:
    env = environment(env={"A": "${NOMAD_TASK_NAME}/${node.datacenter}", "NOMAD_DC": "mine"})
    assert (env["A"], env["NOMAD_DC"]) == ("t/dc1", "mine")


def test_the_tasks_meta_wins_over_the_groups_and_the_jobs() -> None:
    assert environment(meta={"tier": "t ${NOMAD_ALLOC_INDEX}"})["NOMAD_META_tier"] == "t 2"


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("${A}", "1"),
        ("x${A}y${A}", "x1y1"),
        ('${env["A"]}', "1"),
        ("${ A }", "1"),
        ("${node.region}", "eu"),
        ("${unknown}", "${unknown}"),
        ("$A {A} ${}", "$A {A} ${}"),
        ("${A", "${A"),
    ],
)
def test_known_references_are_replaced(text: str, becomes: str) -> None:
    assert interpolation.expand(text, {"A": "1", "node.region": "eu"}) == becomes


def test_references_are_replaced_at_any_depth_and_other_values_stay() -> None:
    value = {"a": ["${A}", 1, True, None, {"b": "${A}"}], "${A}": 1.5}
    assert interpolation.expand(value, {"A": "x"}) == {
        "a": ["x", 1, True, None, {"b": "x"}],
        "${A}": 1.5,
    }


def test_the_value_of_a_reference_is_not_expanded_again() -> None:
    assert interpolation.expand("${A}", {"A": "${B}", "B": "no"}) == "${B}"


def test_the_node_is_this_machine() -> None:
    node = interpolation.node(job_of())
    assert node["attr.kernel.name"] == "linux"
    assert node["node.unique.name"] == platform.node()
    assert int(node["attr.cpu.numcores"]) > 0


def test_a_template_knows_the_environment_and_nothing_else() -> None:
    assert interpolation.render('{{ env "A" }}{{- env "A" -}}|{{env "B"}}', {"A": "1"}) == "11|"
    with pytest.raises(ValueError, match=r'\{\{ key "x" \}\} needs a Nomad agent'):
        interpolation.render('a {{ key "x" }}', {})


def test_a_value_in_a_template_is_no_template() -> None:
    assert interpolation.render('{{ env "A" }}', {"A": "{{ x }}"}) == "{{ x }}"


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("local/a", "local/a"),
        ("${NOMAD_TASK_DIR}/a", "local/a"),
        ("${NOMAD_SECRETS_DIR}/a", "secrets/a"),
        ("${NOMAD_ALLOC_DIR}/data/a", "../alloc/data/a"),
        ("/local/${NOMAD_TASK_NAME}", "local/t"),
    ],
)
def test_a_destination_is_a_path_below_the_task_directory(text: str, becomes: str) -> None:
    assert interpolation.destination(text, environment()) == becomes


# --- allocation directories


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_allocation_is_laid_out_as_nomad_does(tmp_path: Path) -> None:
    alloc = AllocDir(tmp_path, ALLOC)
    alloc.build(["t"])
    created = {str(p.relative_to(alloc.path)): mode(p) for p in alloc.path.rglob("*")}
    assert created == {
        "alloc": 0o755,
        "alloc/logs": 0o777,
        "alloc/logs/.t.stdout.fifo": 0o600,
        "alloc/logs/.t.stderr.fifo": 0o600,
        "alloc/data": 0o777,
        "alloc/tmp": 0o777,
        "t": 0o777,
        "t/local": 0o777,
        "t/secrets": 0o777,
        "t/tmp": 0o1777,
        "t/private": 0o700,
    }
    assert alloc.fifo("t", "stdout").is_fifo()
    # Only root may enter the allocation's directory.
    assert mode(alloc.path) == 0o700
    alloc.remove()
    assert not alloc.path.exists()


def test_a_directory_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DriverError, match="--alloc-dir") as error:
        AllocDir(tmp_path / "file", ALLOC).build(["t"])
    assert error.value.code is Code.DENIED


# --- plan of a job


def planned(task: JobTask, root: Path, count: int = 1) -> list[alloc_plan.Alloc]:
    return alloc_plan.allocations(job_of(task, count=count), root, HostPorts("127.0.0.1"), {})


def test_each_allocation_has_an_id_and_a_directory_of_its_own(tmp_path: Path) -> None:
    allocs = planned(JobTask(name="t", driver="d", config={}), tmp_path, count=3)
    configs = [alloc.tasks[0].config for alloc in allocs]
    assert len({config.alloc_id for config in configs}) == 3
    assert [config.env["NOMAD_ALLOC_INDEX"] for config in configs] == ["0", "1", "2"]
    assert [alloc.tasks[0].label for alloc in allocs] == ["t[0]", "t[1]", "t[2]"]
    for config in configs:
        assert config.id.startswith(f"{config.alloc_id}/t/")
        assert config.alloc_dir == str(tmp_path / config.alloc_id)
        assert config.stdout_path == f"{config.alloc_dir}/alloc/logs/.t.stdout.fifo"
    assert list(tmp_path.iterdir()) == []


def test_the_drivers_block_and_the_user_are_interpolated(tmp_path: Path) -> None:
    task = JobTask(
        name="t",
        driver="d",
        config={"args": ["${NOMAD_META_tier}", "${attr.kernel.name}"]},
        user="${NOMAD_META_user}",
        meta={"user": "nobody"},
    )
    (alloc,) = planned(task, tmp_path)
    assert alloc.tasks[0].options == {"args": ["g", "linux"]}
    assert alloc.tasks[0].config.user == "nobody"


def test_the_larger_of_both_memories_is_the_limit(tmp_path: Path) -> None:
    task = JobTask(name="t", driver="d", config={}, memory_mb=10, memory_max_mb=20)
    (alloc,) = planned(task, tmp_path)
    assert alloc.tasks[0].config.resources.memory_limit_bytes == 20 * 1024 * 1024


def test_templates_are_written_with_their_modes(tmp_path: Path) -> None:
    task = JobTask(
        name="t",
        driver="d",
        config={},
        templates=(
            Template(data='{{ env "NOMAD_TASK_NAME" }}\n', destination="local/a/b"),
            Template(data="s", destination="${NOMAD_SECRETS_DIR}/s", permissions=0o600),
            Template(data="shared", destination="${NOMAD_ALLOC_DIR}/data/x"),
        ),
    )
    (alloc,) = planned(task, tmp_path)
    alloc_plan.build(alloc)
    home = alloc.directory.path
    assert (home / "t/local/a/b").read_text() == "t\n"
    assert mode(home / "t/local/a/b") == 0o644
    assert mode(home / "t/secrets/s") == 0o600
    assert (home / "alloc/data/x").read_text() == "shared"


@pytest.mark.parametrize(
    "destination", ["../other/x", "../../x", "/../../../etc/x", "", "local/.."]
)
def test_a_template_cannot_be_written_elsewhere(destination: str, tmp_path: Path) -> None:
    task = JobTask(
        name="t", driver="d", config={}, templates=(Template(data="", destination=destination),)
    )
    (alloc,) = planned(task, tmp_path)
    with pytest.raises(DriverError, match="leaves the task directory"):
        alloc_plan.build(alloc)


def test_a_template_that_needs_nomad_is_refused_with_the_tasks_name(tmp_path: Path) -> None:
    task = JobTask(
        name="t",
        driver="d",
        config={},
        templates=(Template(data="{{ secret }}", destination="local/x"),),
    )
    (alloc,) = planned(task, tmp_path)
    with pytest.raises(DriverError, match=r"t: template: \{\{ secret \}\} needs a Nomad agent"):
        alloc_plan.build(alloc)
