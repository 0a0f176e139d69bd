"""What can be said of a block without running it: that it is one of its language."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from typing import Final

import yaml

from .pages import Block

INSTRUCTIONS: Final = re.compile(
    "ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|ONBUILD|RUN|SHELL|STOPSIGNAL"
    "|USER|VOLUME|WORKDIR"
)


def check(block: Block) -> None:
    """Raise where the block is not what its language allows."""
    source = block.source
    if block.language == "python":
        compile(source, block.where, "exec", dont_inherit=True)
    elif block.language == "json":
        json.loads(source)
    elif block.language == "yaml":
        assert all(document is not None for document in yaml.safe_load_all(source))
    elif block.language == "toml" and sys.version_info >= (3, 11):
        import tomllib

        tomllib.loads(source)
    elif block.language == "ini":
        # As systemd writes them: names may come twice, and have capitals.
        configparser.RawConfigParser(strict=False).read_string(source)
    elif block.language == "dockerfile":
        check_dockerfile(source)
    elif block.language == "go" and shutil.which("gofmt"):
        accepted(["gofmt", "-e"], source)
    elif block.language == "javascript" and shutil.which("node"):
        # Checked as a module, in which `await` may stand at the top.
        accepted(["node", "--check", "--input-type=module", "-"], source)


def check_dockerfile(source: str) -> None:
    lines = source.replace("\\\n", " ").splitlines()
    words = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    for instruction, *_ in words:
        assert INSTRUCTIONS.fullmatch(instruction), f"no instruction: {instruction}"
    assert words[0][0] in ("ARG", "FROM")


def accepted(command: list[str], source: str) -> None:
    found = subprocess.run(command, input=source, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
