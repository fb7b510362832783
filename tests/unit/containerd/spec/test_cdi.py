"""CDI files, as edits of a container."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from containerd.spec import cdi
from proto.errors import DriverError

NODE = {"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}
GPU: dict[str, Any] = {
    "cdiVersion": "0.5.0",
    "kind": "acme.com/gpu",
    "containerEdits": {
        "env": ["ACME=1", "ACME_PATH=/opt=x"],
        "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"]}],
    },
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [NODE]}},
        {
            "name": "1",
            "containerEdits": {
                "env": ["ACME=2"],
                "deviceNodes": [{"path": "/dev/gpu1", "type": "c", "major": 195, "minor": 1}],
                "mounts": [
                    {
                        "hostPath": "/usr/lib/acme",
                        "containerPath": "/usr/lib/acme",
                        "options": ["ro", "nosuid"],
                    }
                ],
                "additionalGids": [44, 0],
            },
        },
    ],
}


def spec(directory: Path, name: str, document: Any) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(document if isinstance(document, str) else json.dumps(document))


def read(directory: Path, *names: str) -> cdi.Edits:
    return cdi.edits(names, [str(directory / "etc"), str(directory / "run")])


def test_devices_bring_nodes_mounts_env_hooks_and_groups(tmp_path: Path) -> None:
    spec(tmp_path / "etc", "acme.json", GPU)
    edits = read(tmp_path, "acme.com/gpu=0", "acme.com/gpu=1", "acme.com/gpu=0")
    assert edits.env == {"ACME": "2", "ACME_PATH": "/opt=x"}
    assert [(n.path, n.major, n.minor, n.permissions) for n in edits.devices] == [
        ("/dev/gpu0", 1, 3, "rw"),
        ("/dev/gpu1", 195, 1, "rwm"),
    ]
    assert [(m.source, m.target, m.options) for m in edits.mounts] == [
        ("/usr/lib/acme", "/usr/lib/acme", ("ro", "nosuid", "rbind"))
    ]
    assert edits.hooks == {"createContainer": ({"path": "/bin/true", "args": ["true"]},)}
    assert edits.additional_gids == (44,)


def test_an_unknown_device_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    spec(tmp_path / "etc", "acme.json", GPU)
    with pytest.raises(DriverError, match=r"no CDI device 'acme.com/gpu=7' in .*etc and .*run"):
        read(tmp_path, "acme.com/gpu=7")
    with pytest.raises(DriverError, match=r"known: acme.com/gpu=0, acme.com/gpu=1"):
        read(tmp_path, "acme.com/gpu=all")
    with pytest.raises(DriverError, match="known: none"):
        read(tmp_path / "nowhere", "acme.com/gpu=0")


def test_a_later_directory_overrides_an_earlier_one(tmp_path: Path) -> None:
    spec(tmp_path / "etc", "acme.json", GPU)
    other = {"kind": "acme.com/gpu", "devices": [{"name": "1", "containerEdits": {"env": ["N=1"]}}]}
    spec(tmp_path / "run", "acme.json", other)
    assert read(tmp_path, "acme.com/gpu=1").env == {"N": "1"}
    assert read(tmp_path, "acme.com/gpu=0").env["ACME"] == "1"


def test_a_device_that_two_files_of_one_directory_claim_is_nobodys(tmp_path: Path) -> None:
    spec(tmp_path / "etc", "a.json", GPU)
    spec(tmp_path / "etc", "b.json", GPU)
    with pytest.raises(DriverError, match=r"is in .*a\.json and in .*b\.json"):
        read(tmp_path, "acme.com/gpu=0")


def test_a_broken_file_does_not_hide_the_others(tmp_path: Path) -> None:
    spec(tmp_path / "etc", "acme.json", GPU)
    spec(tmp_path / "etc", "broken.json", "{")
    spec(tmp_path / "etc", "list.json", [])
    spec(tmp_path / "etc", "readme.txt", "no spec")
    assert read(tmp_path, "acme.com/gpu=0").devices
    with pytest.raises(DriverError, match=r"left out: .*broken\.json.*list\.json"):
        read(tmp_path, "acme.com/gpu=9")


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        ({"netDevices": [{"hostInterfaceName": "eth1"}]}, "containerEdits.netDevices is not"),
        ({"hooks": [{"hookName": "never", "path": "/x"}]}, "hook 'never' is none of"),
        ({"hooks": [{"hookName": "prestart", "path": "x"}]}, "is not absolute"),
        ({"mounts": [{"hostPath": "/x"}]}, "cannot be used: KeyError"),
        ({"mounts": [{"hostPath": "/x", "containerPath": "/proc/x"}]}, "container's own"),
        ({"deviceNodes": [{"path": "/dev/no-such"}]}, "'/dev/no-such' cannot be used"),
        ({"env": 7}, "cannot be used: TypeError"),
    ],
)
def test_what_cannot_be_done_is_not_half_done(tmp_path: Path, edit: Any, text: str) -> None:
    document = {"kind": "acme.com/gpu", "devices": [{"name": "0", "containerEdits": edit}]}
    spec(tmp_path / "etc", "acme.json", document)
    with pytest.raises(DriverError, match=text):
        read(tmp_path, "acme.com/gpu=0")


def test_yaml_without_its_library_is_left_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec(tmp_path / "etc", "acme.yaml", "kind: acme.com/gpu\ndevices: [{name: '0'}]\n")
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(DriverError, match="a YAML file needs Debian's python3-yaml"):
        read(tmp_path, "acme.com/gpu=0")


def test_yaml_is_read_where_its_library_is(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    spec(tmp_path / "etc", "acme.yaml", "kind: acme.com/gpu\ndevices: [{name: '0'}]\n")
    assert read(tmp_path, "acme.com/gpu=0") == cdi.Edits()


def test_without_cdi_devices_no_file_is_read() -> None:
    assert cdi.edits((), ["/proc/self/mem"]) == cdi.Edits()
