"""Options of a task's image: name, pull, credentials, platform."""

from __future__ import annotations

from plugin.options import forms, readers
from plugin.options.auth import TASK_AUTH, task_auth
from plugin.options.table import Option

IMAGE = (
    Option(
        name="image",
        hcl_type="string",
        required=True,
        read=readers.required_text,
        doc="Image to run, written as for Docker.",
    ),
    Option(
        name="image_pull_timeout",
        field="image_pull_timeout_s",
        hcl_type="string",
        implied='"5m"',
        read=readers.duration_s(prefix="Failed to parse image_pull_timeout: ", at_least=0.001),
        doc="Longest time of a pull; the plugin block may have another default.",
    ),
    Option(
        name="image_pull_policy",
        hcl_type="string",
        default='""',
        read=readers.choice("always", "missing", "never"),
        doc="`always`, `missing` or `never`; empty: `missing`, but `latest` is looked up first.",
    ),
    Option(
        name="force_pull",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc='`true` is `image_pull_policy = "always"`.',
    ),
    Option(
        name="load",
        hcl_type="string",
        read=readers.text(),
        doc="Archive with the image, below the task directory, as written by `docker save` or"
        " `skopeo`.",
    ),
    Option(
        name="snapshotter",
        hcl_type="string",
        default='""',
        read=readers.containerd_name,
        doc="containerd's snapshotter; empty: the driver's.",
    ),
    Option(
        name="platform",
        hcl_type="string",
        read=forms.platform,
        doc="Platform of the image, such as `linux/arm64` or `linux/arm/v6`; default: the best for"
        " this machine. See [images.md](images.md#platforms).",
    ),
    Option(
        name="arch",
        hcl_type="string",
        read=forms.platform_word,
        doc="Podman's form of `platform`: the architecture.",
    ),
    Option(
        name="os",
        hcl_type="string",
        read=forms.platform_word,
        doc="Podman's form of `platform`: only `linux`.",
    ),
    Option(
        name="variant",
        hcl_type="string",
        read=forms.platform_word,
        doc="Podman's form of `platform`: the variant of the architecture.",
    ),
    Option(
        name="auth",
        hcl_type="block",
        nested=TASK_AUTH,
        read=task_auth,
        doc="Credentials for the image's registry; these win over the driver's.",
    ),
    Option(
        name="auth_soft_fail",
        hcl_type="bool",
        default="false",
        read=readers.boolean,
        doc="`true` pulls without credentials when the registry's credentials are unavailable.",
    ),
)
