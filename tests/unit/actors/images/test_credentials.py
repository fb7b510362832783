"""The choice of a pull's password for each host, and the limits of helpers and config files."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.images import credential_helper
from actors.images.credentials import CredentialSources
from actors.images.docker_config import DockerConfig
from actors.model.settings import Auth, DriverSettings
from actors.processes import child_process
from containerd.registry.credentials import Credentials
from proto.errors import Code, DriverError
from tests.support.waiting import wait_until

SECRET = "hush-hush"
OPERATOR = Auth(username="operator", password=SECRET)
TASK = Auth(username="job", password="own")


async def find(
    settings: DriverSettings,
    registry: str = "r.example",
    *,
    mirrors: Sequence[str] = (),
    own: Auth | None = None,
    repository: str = "team/app",
    proxies: dict[str, str] | None = None,
) -> dict[str, str]:
    """Returns the user, or the identity token, by host."""
    sources = CredentialSources(settings, proxies)
    found = await sources.find(registry, [registry, *mirrors], own, repository)
    return {one.server_address: one.identity_token or one.username for one in found}


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Creates a directory which comes first in the search for helpers."""
    programs = tmp_path / "bin"
    programs.mkdir()
    path = f"{programs}:{child_process.BASE_ENVIRONMENT['PATH']}"
    environment = MappingProxyType({**child_process.BASE_ENVIRONMENT, "PATH": path})
    monkeypatch.setattr(child_process, "BASE_ENVIRONMENT", environment)
    return programs


def helper(directory: Path, name: str, script: str) -> Path:
    """Writes a credential helper with the given name."""
    program = directory / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def answering(user: str, secret: str = SECRET) -> str:
    """Returns the script of a helper which knows every registry and records each requested name."""
    answer = json.dumps({"ServerURL": "x", "Username": user, "Secret": secret})
    return f"cat >> $0.asked; echo >> $0.asked; echo '{answer}'"


def config(directory: Path, fields: object) -> str:
    """Writes a Docker config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps(fields))
    return str(path)


@pytest.mark.parametrize(
    ("registry", "server", "sent"),
    [
        ("docker.io", "", True),
        ("evil.example", "", False),
        ("127.0.0.1:5000", "", False),
        ("r.example", "r.example", True),
        ("r.example", "https://r.example/v2/", True),
        ("r.example:444", "r.example", False),
        ("r.example.evil.example", "r.example", False),
    ],
)
async def test_the_operators_password_goes_to_its_own_registry_only(
    registry: str, server: str, sent: bool
) -> None:
    auth = Auth(username="operator", password=SECRET, server_address=server)
    assert await find(DriverSettings(auth=auth), registry) == (
        {registry: "operator"} if sent else {}
    )


async def test_the_tasks_password_is_for_its_images_registry_or_the_one_that_it_names() -> None:
    settings = DriverSettings(auth=OPERATOR)
    assert await find(settings, "docker.io", own=TASK) == {"docker.io": "job"}
    assert await find(settings, "r.example", own=TASK) == {"r.example": "job"}
    elsewhere = Auth(username="job", password="own", server_address="other.example")
    assert await find(settings, "docker.io", own=elsewhere) == {"docker.io": "operator"}
    assert await find(settings, "r.example", own=elsewhere) == {}


async def test_a_mirror_gets_only_what_is_for_the_mirror(tmp_path: Path) -> None:
    path = config(tmp_path, {"auths": {"m.example": {"username": "m", "password": SECRET}}})
    settings = DriverSettings(auth=OPERATOR, auth_config=path)
    found = await find(settings, "docker.io", mirrors=["m.example", "n.example"], own=TASK)
    assert found == {"docker.io": "job", "m.example": "m"}


async def test_the_order_is_task_config_helper_driver_nobody(tmp_path: Path, helpers: Path) -> None:
    helper(helpers, "store", answering("helper"))
    path = config(tmp_path, {"auths": {"r.example": {"username": "file", "password": SECRET}}})
    driver = Auth(username="driver", password=SECRET, server_address="r.example")
    everything = DriverSettings(auth=driver, auth_config=path, auth_helper="store")
    assert await find(everything, own=TASK) == {"r.example": "job"}
    assert await find(everything) == {"r.example": "file"}
    assert await find(DriverSettings(auth=driver, auth_helper="store")) == {"r.example": "helper"}
    assert await find(DriverSettings(auth=driver)) == {"r.example": "driver"}
    assert await find(DriverSettings()) == {}


async def test_the_operators_helper_is_not_asked_for_mirrors(helpers: Path) -> None:
    program = helper(helpers, "store", answering("helper"))
    settings = DriverSettings(auth_helper="store")
    assert await find(settings, mirrors=["m.example"]) == {"r.example": "helper"}
    assert Path(f"{program}.asked").read_text() == "r.example\n"


async def test_a_helper_that_knows_nothing_leaves_it_to_the_next_source(helpers: Path) -> None:
    words = "echo credentials not found in native keychain; exit 1"
    helper(helpers, "store", words)
    driver = Auth(username="driver", password=SECRET, server_address="r.example")
    assert await find(DriverSettings(auth=driver, auth_helper="store")) == {"r.example": "driver"}


async def test_a_config_file_names_a_helper_for_a_registry_or_for_all(
    tmp_path: Path, helpers: Path
) -> None:
    one = helper(helpers, "one", answering("one"))
    helper(helpers, "all", answering("all"))
    fields = {
        "auths": {"r.example": {}, "https://index.docker.io/v1/": {}},
        "credHelpers": {"q.example": "one", "docker.io": "one"},
        "credsStore": "all",
    }
    settings = DriverSettings(auth_config=config(tmp_path, fields))
    assert await find(settings, "q.example") == {"q.example": "one"}
    assert await find(settings, "r.example") == {"r.example": "all"}
    assert await find(settings, "docker.io") == {"docker.io": "one"}
    assert Path(f"{one}.asked").read_text() == "q.example\nhttps://index.docker.io/v1/\n"


@pytest.mark.parametrize("key", ["docker.io", "https://index.docker.io/v1/", "index.docker.io"])
def test_docker_hub_is_known_by_every_name(tmp_path: Path, key: str) -> None:
    packed = base64.b64encode(f"hub:{SECRET}:more".encode()).decode()
    path = config(tmp_path, {"auths": {key: {"auth": packed}}})
    found = DockerConfig(path).credentials("docker.io")
    assert found is not None
    assert (found.username, found.password) == ("hub", f"{SECRET}:more")


def test_a_password_that_base64_broke_into_lines_is_whole(tmp_path: Path) -> None:
    packed = base64.encodebytes(f"user:{SECRET * 20}".encode()).decode()
    path = config(tmp_path, {"auths": {"r.example": {"auth": packed.replace("\n", "\r\n")}}})
    found = DockerConfig(path).credentials("r.example")
    assert found is not None
    assert (found.username, found.password) == ("user", SECRET * 20)


@pytest.mark.parametrize(
    ("repository", "user"),
    [
        ("team-a/app", "a"),
        ("team-b/app", "b"),
        ("team-b/secret/app", "b-secret"),
        ("team-b/secret", "b-secret"),
        ("team-b/secretary", "b"),
        ("team-ab/app", "host"),
        ("team-a", "a"),
        ("Team-A/app", "host"),
        ("app", "host"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "https://", "http://"])
async def test_the_longest_namespace_counts_and_then_the_registry(
    tmp_path: Path, repository: str, user: str, prefix: str
) -> None:
    keys = {
        "r.example/team-a": "a",
        "R.Example/team-b/": "b",
        "r.example": "host",
        "r.example/team-b/secret": "b-secret",
        "r.example:5000": "port",
        "q.example/team-a": "q",
    }
    entries = {f"{prefix}{key}": {"username": u, "password": SECRET} for key, u in keys.items()}
    path = config(tmp_path, {"auths": entries})
    assert await find(DriverSettings(auth_config=path), repository=repository) == {
        "r.example": user
    }


@pytest.mark.parametrize("key", ["r.example/team-a", "https://r.example/team-a/app"])
async def test_another_namespaces_password_is_never_taken(tmp_path: Path, key: str) -> None:
    path = config(tmp_path, {"auths": {key: {"username": "a", "password": SECRET}}})
    settings = DriverSettings(auth_config=path)
    assert await find(settings, repository="team-b/app") == {}
    assert await find(settings, repository="team-a/app") == {"r.example": "a"}
    # Docker Desktop keeps a token beside the password.
    hub = {"https://index.docker.io/v1/access-token": {"username": "t", "password": SECRET}}
    assert (
        await find(DriverSettings(auth_config=config(tmp_path, {"auths": hub})), "docker.io") == {}
    )


async def test_an_empty_entry_leaves_it_to_the_next_one(tmp_path: Path) -> None:
    fields = {"r.example/team": {}, "r.example": {"username": "host", "password": SECRET}}
    path = config(tmp_path, {"auths": fields})
    assert await find(DriverSettings(auth_config=path)) == {"r.example": "host"}


async def test_a_helpers_registry_has_no_namespace(tmp_path: Path, helpers: Path) -> None:
    helper(helpers, "one", answering("one"))
    path = config(tmp_path, {"credHelpers": {"r.example/team": "one", "q.example": "one"}})
    settings = DriverSettings(auth_config=path)
    assert await find(settings) == {}
    assert await find(settings, "q.example") == {"q.example": "one"}


async def test_the_operators_password_for_a_namespace_is_for_that_one_alone() -> None:
    auth = Auth(username="operator", password=SECRET, server_address="r.example/team-a")
    settings = DriverSettings(auth=auth)
    assert await find(settings, repository="team-a/app") == {"r.example": "operator"}
    assert await find(settings, repository="team-b/app") == {}


async def test_a_mirrors_path_belongs_to_the_repository_there(tmp_path: Path) -> None:
    entries = {
        "m.example/hub": {"username": "hub", "password": SECRET},
        "m.example/team": {"username": "team", "password": SECRET},
    }
    settings = DriverSettings(auth_config=config(tmp_path, {"auths": entries}))
    found = await find(settings, mirrors=["m.example/hub", "m.example", "m.example/other"])
    assert found == {"m.example/hub": "hub", "m.example": "team"}


async def test_an_identity_token_stands_for_the_password(tmp_path: Path, helpers: Path) -> None:
    entry = {"auth": base64.b64encode(b"user:").decode(), "identitytoken": "refresh"}
    path = config(tmp_path, {"auths": {"r.example": entry}})
    assert await find(DriverSettings(auth_config=path)) == {"r.example": "refresh"}
    helper(helpers, "store", answering("<token>", "renew"))
    assert await find(DriverSettings(auth_helper="store")) == {"r.example": "renew"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{" + SECRET, "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (f'["{SECRET}"]', "is not a JSON object"),
        (f'{{"auths": "{SECRET}"}}', "auths is not an object"),
        (f'{{"auths": {{"r.example": "{SECRET}"}}}}', "auths of r.example is not an object"),
        (f'{{"auths": {{"r.example": {{"auth": "{SECRET}!"}}}}}}', "is not base64"),
        (f'{{"auths": {{"r.example": {{"password": ["{SECRET}"]}}}}}}', "password of r.example is"),
        (f'{{"credHelpers": "{SECRET}"}}', "credHelpers is not an object"),
        (f'{{"credsStore": ["{SECRET}"]}}', "helper of r.example is not a string"),
        (" " * (1024 * 1024 + 1), "is over 1 MiB"),
    ],
)
async def test_a_wrong_config_file_is_named_and_not_quoted(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(DriverError, match=words) as caught:
        await find(DriverSettings(auth_config=str(path)))
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert not caught.value.recoverable


async def test_a_config_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="cannot be read: No such file"):
        await find(DriverSettings(auth_config=str(tmp_path / "none.json")))


@given(st.text())
def test_no_registry_name_upsets_a_config_file(host: str) -> None:
    fields = {"auths": {host: {"username": "u", "password": "p"}}}
    path = Path("/dev/shm") / "cd-test-config.json"
    path.write_text(json.dumps(fields))
    try:
        DockerConfig(str(path)).credentials(host)
    finally:
        path.unlink()


@pytest.mark.parametrize(
    "name", ["../bin/evil", "/bin/sh", "a/b", "", ".", "-rf", "a b", "a\nb", "a;b", "a\0b"]
)
async def test_a_helper_is_a_name_and_never_a_path(helpers: Path, name: str) -> None:
    with pytest.raises(DriverError, match="invalid name") as caught:
        await credential_helper.ask(name, "r.example")
    assert caught.value.code is Code.INVALID


async def test_a_helper_that_is_not_installed_is_named() -> None:
    with pytest.raises(DriverError, match="docker-credential-none-such is not installed"):
        await credential_helper.ask("none-such", "r.example")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"echo {SECRET}; exit 3", "exit status 3"),
        ("kill -9 $$", "exit status -9"),
        (f"echo {SECRET}", "the answer is not JSON"),
        (f"""echo '{{"Username": 5, "Secret": "{SECRET}"}}'""", "the answer is not JSON with"),
        (f"""echo '["{SECRET}"]'""", "the answer is not JSON with"),
        ("exec cat /dev/zero", "the answer has more than"),
    ],
)
async def test_a_helper_that_fails_is_an_error_without_its_words(
    helpers: Path, script: str, words: str
) -> None:
    helper(helpers, "bad", script)
    with pytest.raises(DriverError, match=words) as caught:
        await credential_helper.ask("bad", "r.example")
    assert "docker-credential-bad" in caught.value.brief
    assert SECRET not in str(caught.value)
    assert caught.value.recoverable


async def test_a_helper_that_hangs_is_ended_with_its_children(helpers: Path) -> None:
    program = helper(helpers, "slow", "sleep 4321 & echo $! > $0.pid; cat > /dev/null; wait")
    with pytest.raises(DriverError, match="no answer within"):
        await credential_helper.ask("slow", "r.example", timeout_s=1)
    child = int(Path(f"{program}.pid").read_text())
    wait_until(lambda: not _runs(child), 5, "the helper's child still runs")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_helper_gets_neither_our_environment_nor_secrets_as_arguments(
    helpers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOMAD_TOKEN", SECRET)
    program = helper(helpers, "env", f"env > $0.env; echo $* > $0.argv; {answering('u')}")
    found = await credential_helper.ask("env", "r.example")
    assert found == Credentials(username="u", password=SECRET, server_address="r.example")
    environment = Path(f"{program}.env").read_text()
    assert "NOMAD_TOKEN" not in environment
    assert "HOME=" in environment
    assert Path(f"{program}.argv").read_text() == "get\n"


async def test_a_helper_gets_the_proxies_as_a_process_of_docker_does(
    tmp_path: Path, helpers: Path
) -> None:
    store = helper(helpers, "store", f"env > $0.env; {answering('u')}")
    other = helper(helpers, "other", f"env > $0.env; {answering('u')}")
    proxies = {"HTTPS_PROXY": "http://u:p@proxy.example:3128", "no_proxy": "localhost"}
    path = config(tmp_path, {"credHelpers": {"q.example": "other"}})
    settings = DriverSettings(auth_helper="store", auth_config=path)
    assert await find(settings, proxies=proxies) == {"r.example": "u"}
    assert await find(settings, "q.example", proxies=proxies) == {"q.example": "u"}
    for program in (store, other):
        environment = Path(f"{program}.env").read_text().splitlines()
        assert "HTTPS_PROXY=http://u:p@proxy.example:3128" in environment
        assert "no_proxy=localhost" in environment


async def test_a_helper_may_leave_the_question_unread(helpers: Path) -> None:
    answer = json.dumps({"Username": "u", "Secret": SECRET})
    helper(helpers, "deaf", f"exec <&-; echo '{answer}'")
    assert await credential_helper.ask("deaf", "r.example") is not None


def test_credentials_do_not_print_their_secrets() -> None:
    whole = Credentials(username="u", password=SECRET, identity_token=f"{SECRET}2")
    assert SECRET not in repr(whole)
    assert SECRET not in repr(OPERATOR)
