"""Says whether a tag may be released: ``python -m tools.release v1.2.3``.

It may if it is the version that the package states, and the changelog dates that version.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

UNRELEASED = "unreleased"
_HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\S+)$", re.MULTILINE)


def version() -> str:
    """What `roletalk.__version__` is, read without importing it."""
    text = (ROOT / "roletalk" / "_version.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if found is None:
        raise ValueError("roletalk/_version.py states no version")
    return found.group(1)


def changes() -> dict[str, str]:
    """The date of each version in the changelog, or `UNRELEASED`, the newest first."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    return dict(_HEADING.findall(text))


def refusal(tag: str, version: str, changes: dict[str, str]) -> str:
    """Why `tag` may not be released; empty if it may."""
    if tag != f"v{version}":
        return f"the tag is {tag} and the version {version}"
    if next(iter(changes), None) != version:
        return f"CHANGELOG.md does not begin with {version}"
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", changes[version]) is None:
        return f"CHANGELOG.md has {version} as {changes[version]!r}, not with its date"
    return ""


def main(tag: str) -> int:
    refused = refusal(tag, version(), changes())
    print(refused or f"{tag} may be released", file=sys.stderr if refused else sys.stdout)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
