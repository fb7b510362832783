"""Makes texts of registries safe to show: the registry's message, no query, no password."""

from __future__ import annotations

import json
import re

_SHOWN = 200


def shown(url: str) -> str:
    """Removes query, fragment and user from a URL; each of them may work like a password."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    scheme, slashes, rest = bare.rpartition("//")
    host, slash, path = rest.partition("/")
    text = f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"
    return printable(text.encode(errors="replace"))


def printable(body: bytes) -> str:
    """Returns the beginning of a foreign text, with blanks for unprintable characters."""
    text = body.decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text)[:_SHOWN].strip()


def message(body: bytes) -> str:
    """Returns the first error message in an answer: OCI's form, S3's form, or plain text."""
    try:
        fields = json.loads(body)
        first = fields["errors"][0]
        parts = [str(first.get(key) or "") for key in ("code", "message")]
        detail = first.get("detail")
        parts.append(detail if isinstance(detail, str) else "")
        return printable(": ".join(filter(None, parts)).encode(errors="replace"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        pass
    code = re.search(rb"<Code>([^<]*)</Code>", body)
    text = re.search(rb"<Message>([^<]*)</Message>", body)
    if code:
        return printable(b": ".join(match[1] for match in (code, text) if match))
    if b"<html" in body[:_SHOWN].lower():
        return ""
    return printable(body)
