"""The choice of a manifest for a machine: indexes of every shape, without I/O."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerd.image import choice, manifests
from containerd.image.choice import Chosen, Wanted
from containerd.image.config import ImageConfig, parse_config
from containerd.image.manifests import Descriptor
from proto import frames
from proto.errors import Code, DriverError
from tests.support.registries.images import CONFIG, INDEX, LAYER, MANIFEST, digest_of


class Store:
    """Documents by digest. `reads` are the requested digests."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.reads: list[str] = []

    def put(self, media_type: str, document: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Keeps a document and returns its descriptor."""
        body = json.dumps(document).encode()
        self.bodies[digest_of(body)] = body
        found = {"mediaType": media_type, "digest": digest_of(body), "size": len(body), **more}
        return {key: value for key, value in found.items() if value is not None}

    def image(
        self, cmd: str, architecture: str = "amd64", variant: str = "", **entry: Any
    ) -> dict[str, Any]:
        """Adds an image whose config has a platform; `entry` has more fields of the descriptor."""
        config = {"os": "linux", "architecture": architecture, "variant": variant}
        rootfs = {"type": "layers", "diff_ids": [digest_of(cmd.encode())]}
        document = {**config, "config": {"Cmd": [cmd]}, "rootfs": rootfs}
        layer = {"mediaType": LAYER, "digest": digest_of(cmd.encode()), "size": 5}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer]}
        manifest["config"] = self.put(CONFIG, document)
        return self.put(MANIFEST, manifest, **entry)

    def index(self, *entries: dict[str, Any], **entry: Any) -> dict[str, Any]:
        """Adds an index of these entries."""
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries)}
        return self.put(INDEX, document, **entry)

    def artifact(self, **entry: Any) -> dict[str, Any]:
        """Adds a signature."""
        layer = {"mediaType": "application/vnd.in-toto+json", "digest": digest_of(b""), "size": 0}
        config = self.put(CONFIG, {"rootfs": {}})
        return self.put(MANIFEST, {"config": config, "layers": [layer]}, **entry)

    def remove(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Removes the document of a descriptor, and returns the descriptor."""
        self.bodies.pop(entry["digest"], None)
        return entry

    def choose(self, root: dict[str, Any], machine: str = "x86_64") -> Chosen:
        """Chooses an image for a machine; another machine than the test's has the least CPU."""

        def read(wanted: Wanted) -> bytes:
            self.reads.append(wanted.blob.digest)
            if wanted.blob.digest not in self.bodies:
                raise DriverError(f"no {wanted.blob.digest}", code=Code.NOT_FOUND)
            return self.bodies[wanted.blob.digest]

        blob = Descriptor(media_type=root["mediaType"], digest=root["digest"], size=root["size"])
        return choice.answer(choice.choose(blob, "demo", machine), read)

    def cmd(self, root: dict[str, Any], machine: str = "x86_64") -> str:
        """Returns the command of the chosen image."""
        return self.config(self.choose(root, machine)).cmd[0]

    def config(self, chosen: Chosen) -> ImageConfig:
        """Returns the config of the chosen image, also if the choice has not read the config."""
        body = self.bodies[chosen.manifest.config.digest]
        config = parse_config(body, "demo")
        assert chosen.config in (None, config)
        return config


def platform(architecture: str, variant: str = "", system: str = "linux", **more: Any) -> Any:
    """Builds the platform of an index entry."""
    return {"os": system, "architecture": architecture, "variant": variant, **more}


ATTESTATION = {"platform": platform("unknown", system="unknown")}
OTHER = "riscv64"  # another machine's name; the default machine of a test is x86_64


@pytest.fixture
def store() -> Store:
    return Store()


def test_a_manifest_is_taken_whatever_its_platform_is(store: Store) -> None:
    chosen = store.choose(store.image("a", "arm64"))
    assert str(store.config(chosen).platform) == "linux/arm64"
    assert [document.blob.media_type for document in chosen.path] == [MANIFEST]


@pytest.mark.parametrize("first", [True, False])
def test_an_entry_without_platform_is_a_candidate(store: Store, *, first: bool) -> None:
    bare = store.image("mine")
    others = [
        store.image("arm", "arm64", platform=platform("arm64")),
        store.artifact(**ATTESTATION),
    ]
    entries = [bare, *others] if first else [*others, bare]
    assert store.cmd(store.index(*entries)) == "mine"


@pytest.mark.parametrize("said", [None, {}, {"os": "linux"}, {"os": ""}, {"os.version": "1"}])
def test_the_config_tells_the_platform_that_an_entry_does_not(store: Store, said: Any) -> None:
    entries = [store.image(name, name, platform=said) for name in ("arm64", "amd64", "s390x")]
    assert store.cmd(store.index(*entries)) == "amd64"
    assert store.cmd(store.index(*entries), "aarch64") == "arm64"
    with pytest.raises(DriverError, match="has no manifest for linux/riscv64") as caught:
        store.choose(store.index(*entries), OTHER)
    assert caught.value.details == "platforms of the image: linux/amd64, linux/arm64, linux/s390x"


def test_an_entry_that_tells_its_platform_costs_no_look_at_the_others(store: Store) -> None:
    mine = store.image("mine", platform=platform("amd64"))
    root = store.index(store.image("bare"), store.index(), mine)
    assert store.cmd(root) == "mine"
    assert store.reads == [root["digest"], mine["digest"]]


def test_a_config_without_an_architecture_is_the_last_choice(store: Store) -> None:
    bare = store.image("bare", "")
    assert store.cmd(store.index(bare)) == "bare"
    assert store.cmd(store.index(bare, store.image("386", "386"))) == "386"


@pytest.mark.parametrize("depth", [1, 2, 5, 8])
@pytest.mark.parametrize("told", [True, False])
def test_indexes_are_descended_to_a_bounded_depth(store: Store, depth: int, *, told: bool) -> None:
    said = {"platform": platform("amd64")} if told else {}
    entry = store.image("deep", **said)
    for _ in range(depth):
        entry = store.index(store.image("other", "arm64"), entry, **said)
    chosen = store.choose(entry)
    assert store.config(chosen).cmd == ("deep",)
    assert len(chosen.path) == depth + 1
    with pytest.raises(DriverError, match="nested more than 8 deep") as caught:
        for _ in range(9 - depth):
            entry = store.index(entry)
        store.choose(entry)
    assert caught.value.code is Code.UNSUPPORTED


def test_the_path_leads_from_the_root_to_the_manifest(store: Store) -> None:
    manifest = store.image("a")
    middle = store.index(manifest)
    root = store.index(middle)
    chosen = store.choose(root)
    assert [one.blob.digest for one in chosen.path] == [
        root["digest"],
        middle["digest"],
        manifest["digest"],
    ]
    assert [digest_of(one.body) for one in chosen.path] == [one.blob.digest for one in chosen.path]


def test_entries_that_tell_nothing_are_bounded(store: Store) -> None:
    root = store.index(*(store.image(str(number), "arm64") for number in range(200)))
    with pytest.raises(DriverError, match="more than 128 entries that may be for this machine"):
        store.choose(root)


def test_an_index_that_repeats_itself_is_read_once(store: Store) -> None:
    entry = store.index(store.image("other", "arm64"))
    for _ in range(5):
        entry = store.index(*[entry] * 20)
    with pytest.raises(DriverError, match="has no manifest for linux/amd64"):
        store.choose(entry)
    assert len(store.reads) == len(set(store.reads))


def test_names_of_platforms_are_normalised(store: Store) -> None:
    for said in (
        platform("x86_64"),
        platform("AMD64", "V1", "Linux"),
        platform("x86-64", system=""),
        platform("amd64") | {"os.version": "10.0", "os.features": ["x"], "features": ["sse4"]},
    ):
        entries = [store.image("arm", "arm64", platform=platform("arm64"))]
        entries.append(store.image("mine", platform=said))
        assert store.cmd(store.index(*entries)) == "mine"


def test_the_best_variant_is_taken_and_32_bit_is_the_last_resort(store: Store) -> None:
    entries = [
        store.image("386", "386", platform=platform("386")),
        store.image("v2", variant="v2", platform=platform("amd64", "v2")),
        store.image("v1", platform=platform("amd64")),
        store.image("arm7", "arm", platform=platform("arm", "v7")),
        store.image("arm6", "arm", platform=platform("arm", "v6")),
    ]
    assert store.cmd(store.index(*entries), "i686") == "386"
    assert store.cmd(store.index(*entries), "aarch64") == "arm7"
    assert store.cmd(store.index(*entries), "armv6l") == "arm6"
    assert store.cmd(store.index(entries[0]), "x86_64") == "386"
    assert store.cmd(store.index(entries[0], store.image("bare"))) == "bare"


def test_the_first_of_two_that_are_as_good_is_taken(store: Store) -> None:
    said = platform("amd64")
    featured = store.image("featured", platform=said | {"os.features": ["erofs"]})
    one, two = (store.image(name, platform=said) for name in ("one", "two"))
    assert store.cmd(store.index(featured, one, two)) == "one"
    assert store.cmd(store.index(store.image("one"), store.image("two"))) == "one"


def test_a_statement_about_an_image_is_never_chosen(store: Store) -> None:
    notes = {"vnd.docker.reference.type": "attestation-manifest"}
    for statement in (
        store.image("evil", platform=platform("unknown", system="unknown")),
        store.image("evil", annotations=notes),
        store.image("evil", platform=platform("amd64"), annotations=notes),
        store.artifact(),
        store.artifact(platform=platform("amd64")),
        store.put("application/vnd.in-toto+json", {}),
        store.put("application/vnd.cncf.helm.config.v1+json", {}, platform=platform("amd64")),
    ):
        with pytest.raises(DriverError, match=r"has no manifest for linux/amd64|is not an image"):
            store.choose(store.index(statement))
        assert store.cmd(store.index(statement, store.image("mine"))) == "mine"


def test_an_index_of_artifacts_is_no_image(store: Store) -> None:
    chart = store.put("application/vnd.cncf.helm.config.v1+json", {})
    for entry, told in ((store.artifact(), "in-toto"), (chart, "helm")):
        with pytest.raises(DriverError, match="demo is not an image") as caught:
            store.choose(store.index(entry, store.image("evil", **ATTESTATION)))
        assert told in caught.value.details
        with pytest.raises(DriverError, match="has no manifest for") as caught:
            store.choose(store.index(entry, store.image("arm", "arm64")))
        assert caught.value.details == "platforms of the image: linux/arm64"


def test_what_is_missing_is_passed_over_where_something_else_runs(store: Store) -> None:
    """Removes manifests of an index, as a mirror, an archive or containerd may lack some."""
    gone = store.remove(store.image("gone", platform=platform("amd64")))
    there = store.image("there", platform=platform("amd64"))
    assert store.cmd(store.index(gone, there)) == "there"
    for other in ("arm64", "386"):
        entry = store.image(other, other, platform=platform(other))
        for root in (store.index(gone, entry), store.index(store.index(gone, entry))):
            with pytest.raises(DriverError, match=f"no {gone['digest']}") as caught:
                store.choose(root)
            assert caught.value.code is Code.NOT_FOUND


def test_an_entry_that_is_not_what_its_index_says_is_refused(store: Store) -> None:
    image, index = store.image("a"), store.index(store.image("b"))
    for entry, words in (
        ({**image, "mediaType": INDEX}, "is ambiguous"),
        ({**index, "mediaType": MANIFEST}, "is ambiguous"),
        ({**image, "size": image["size"] - 1}, "is damaged"),
        ({**image, "size": manifests.DOCUMENT_LIMIT_BYTES + 1}, "larger than"),
    ):
        for said in ({}, {"platform": platform("amd64")}):
            with pytest.raises(DriverError, match=words):
                store.choose(store.index({**entry, **said}))
    assert store.cmd(store.index({**image, "mediaType": MANIFEST.upper()})) == "a"
    assert store.cmd(store.index({**image, "mediaType": "application/octet-stream"})) == "a"


def test_an_image_without_layers_and_an_artifact_are_refused(store: Store) -> None:
    config = store.put(CONFIG, {"rootfs": {"diff_ids": []}})
    with pytest.raises(DriverError, match="has no layers"):
        store.choose(store.put(MANIFEST, {"config": config, "layers": []}))
    with pytest.raises(DriverError, match="is not an image: an artifact of type"):
        store.choose(store.artifact())


def test_platforms_in_no_language_are_told_all_the_same(store: Store) -> None:
    """Checks that a frame can carry the error from the puller to the plugin."""
    root = store.index(store.image("x", platform={"os": "linux", "architecture": "\ud800"}))
    with pytest.raises(DriverError, match="has no manifest for linux/") as caught:
        store.choose(root)
    (frame,) = frames.Decoder().feed(frames.encode(caught.value.to_wire()))
    assert frame["details"] == "platforms of the image: linux/?"


_SAID = st.fixed_dictionaries(
    {},
    optional={
        "os": st.sampled_from(["linux", "Linux", "", "windows", "unknown"]),
        "architecture": st.sampled_from(["amd64", "x86_64", "386", "arm64", "unknown", ""]),
        "variant": st.sampled_from(["", "v1", "v2", "v7", "V3"]),
    },
)


@given(st.lists(st.tuples(st.none() | _SAID, _SAID, st.booleans()), max_size=6))
def test_any_index_leads_to_an_image_for_this_machine_or_a_refusal(
    entries: list[tuple[dict[str, str] | None, dict[str, str], bool]],
) -> None:
    store = Store()
    made: list[dict[str, Any]] = []
    for number, (said, config, nested) in enumerate(entries):
        architecture, variant = config.get("architecture", ""), config.get("variant", "")
        entry = store.image(str(number), architecture, variant, platform=said)
        made.append(store.index(entry) if nested else entry)
    refusal = ""
    try:
        chosen = store.choose(store.index(*made))
    except DriverError as error:
        refusal = str(error)
    else:
        assert str(store.config(chosen).platform).startswith("linux")
    assert not refusal or "has no manifest for linux/amd64" in refusal


def test_a_jobs_platform_is_chosen_also_for_another_machine(store: Store) -> None:
    names = [("amd64", ""), ("amd64", "v3"), ("arm64", ""), ("arm", "v6"), ("arm", "v7")]
    entries = [
        store.image("/".join(filter(None, name)), name[0], platform=platform(*name))
        for name in names
    ]
    root = store.index(*entries)
    for wanted, got in (
        ("linux/arm64", "arm64"),
        ("linux/arm64/v8", "arm64"),
        ("linux/arm", "arm/v7"),
        ("linux/arm/v6", "arm/v6"),
        ("linux/amd64/v3", "amd64/v3"),
    ):
        assert store.cmd(root, wanted) == got, wanted
    with pytest.raises(DriverError, match="has no manifest for linux/arm/v5") as caught:
        store.choose(root, "linux/arm/v5")
    assert "choose another platform" in caught.value.resolution
    assert "linux/arm64" in caught.value.details


def test_a_manifest_of_another_platform_than_the_jobs_is_refused(store: Store) -> None:
    assert store.cmd(store.image("a", "arm64"), "linux/arm64") == "a"
    with pytest.raises(DriverError, match="has no manifest for linux/arm64"):
        store.choose(store.image("a", "amd64"), "linux/arm64")
