"""What may be shown of what a registry sends: its own message, no query, no password."""

from __future__ import annotations

import json
import re

_SHOWN = 200


def shown(url: str) -> str:
    """Returns a URL without its query, fragment and user, which may be as good as a password."""
    bare = re.split(r"[?#]", url, maxsplit=1)[0]
    scheme, slashes, rest = bare.rpartition("//")
    host, slash, path = rest.partition("/")
    text = f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"
    return printable(text.encode(errors="replace"))


def printable(body: bytes) -> str:
    """Returns the beginning of a text that somebody else wrote, safe to show."""
    text = body.decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in text)[:_SHOWN].strip()


def message(body: bytes) -> str:
    """Returns the first error that an answer tells: OCI's form, S3's, or its plain text."""
    try:
        fields = json.loads(body)
        first = fields["errors"][0]
        words = [str(first.get(key) or "") for key in ("code", "message")]
        detail = first.get("detail")
        words.append(detail if isinstance(detail, str) else "")
        return printable(": ".join(filter(None, words)).encode(errors="replace"))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        pass
    code = re.search(rb"<Code>([^<]*)</Code>", body)
    text = re.search(rb"<Message>([^<]*)</Message>", body)
    if code:
        return printable(b": ".join(found[1] for found in (code, text) if found))
    if b"<html" in body[:_SHOWN].lower():
        return ""
    return printable(body)
