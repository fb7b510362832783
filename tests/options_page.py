"""Writes docs/options.md, the page of all options, from the option tables of the product.

    ./dev options

The tables are also the source of the schemas that Nomad gets, so the page cannot differ from the
program. tests/test_house_rules.py fails while the page on disk is another one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from plugin.options import DRIVER_OPTIONS, TASK_GROUPS, Option

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"
TEXT = """\
# Options

Written by `./dev options` from the tables of the program: change the tables, not the page.

- [Options of the driver](#options-of-the-driver): the plugin block of the agent's configuration
- [Options of a task](#options-of-a-task): the job's `config` block. [Image](#image) ·
  [Process](#process) · [Resources](#resources) · [Isolation](#isolation) · [Network](#network) ·
  [Devices and mounts](#devices-and-mounts) ·
  [Options of docker and podman](#options-of-docker-and-podman)

A time is written as `"30s"`, `"5m"` or `"1h"`, a size as `"64M"` or `"1G"`. A name with a dot is an
option of a block: `gc.image_delay` means `gc {{ image_delay = "1h" }}`. A wrong option is refused
before anything is pulled or started; the error names all wrong values at once. Nomad itself names
unknown options, before the driver. The operator's gates come last: the error names all forbidden
options at once, except for `privileged`, capabilities, `runtime` and mounts, which are refused one
after the other.

A `map(string)` may be a block or an attribute: `labels {{ a = "b" }}` and `labels = {{ a = "b" }}`.

## Options of the driver

```hcl
plugin "containerd-driver" {{
  config {{
    allow_privileged = false

    gc {{
      image_delay = "3h"
    }}
  }}
}}
```

{driver}

## Options of a task

```hcl
config {{
  image     = "docker.io/library/redis:7"
  command   = "redis-server"
  args      = ["--save", "60", "1"]
  mounts = [
    {{
      type    = "bind"
      source  = "local/data"
      target  = "/data"
      options = ["rbind", "rw"]
    }}
  ]
}}
```

{task}

Nomad's own `user`, `env`, `resources` (`cpu`, `memory`, `memory_max`), `kill_signal`,
`kill_timeout`, `volume_mount`, `template` and `logs` stand beside `config`. All work as with
Nomad's own drivers.
"""


def page() -> str:
    """Returns the text of the page."""
    groups = "\n\n".join(f"### {subject}\n\n{table(group)}" for subject, group in TASK_GROUPS)
    return TEXT.format(driver=table(DRIVER_OPTIONS), task=groups)


def table(options: tuple[Option, ...]) -> str:
    """Returns the Markdown table of a set of options."""
    head = ["| option | type | default | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows(options, "")])


def rows(options: tuple[Option, ...], prefix: str) -> Iterator[str]:
    """Yields the rows of the options, the options of a block below their block."""
    for option in options:
        value = option.default or option.implied
        default = "–" if value in {"", '""'} else f"`{value}`"
        shown = "**required**" if option.required else default
        yield f"| `{prefix}{option.name}` | {option.hcl_type} | {shown} | {option.doc} |"
        yield from rows(option.nested, f"{prefix}{option.name}.")


def main() -> None:
    """Writes the page and prints its path."""
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
