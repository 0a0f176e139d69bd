"""What the figures depend on: the machine, the versions, the date."""

import os
import platform
import re
import subprocess
import sys
import sysconfig
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .gopeer import SOURCE, find_go

QUIET_LOAD = 1.0
PACKAGES = (
    *("roletalk", "picows", "aiofastnet", "uvloop", "msgspec", "Cython"),
    *("aiohttp", "websockets", "pyzmq", "grpcio", "eclipse-zenoh"),
)


def describe_setting(rounds: int, seconds: float) -> dict[str, str]:
    """What can be found out; what cannot is left out."""
    setting = {
        "date": datetime.now(timezone.utc).isoformat(sep=" ", timespec="seconds"),
        "measured": f"{rounds} rounds of {seconds:g} s a turn, after a warm-up",
        "pinning": "a core for each side, but where a scenario or a turn says otherwise",
        "CPU": _cpu_model() or platform.processor(),
        "cores": str(os.cpu_count() or ""),
        "governor": _read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        "load": f"{load:.2f}" if (load := load_average()) is not None else "",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": _first_line((sysconfig.get_config_var("CC") or "cc").split()[0], "--version"),
        "Go": _first_line(go, "version").removeprefix("go version ") if (go := find_go()) else "",
        "roletalk-go": _go_module("roletalk-go"),
        "Node.js": _first_line("node", "--version"),
    }
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            setting[name] = version(name)
    if commit := _first_line("git", "describe", "--always", "--dirty"):
        setting["roletalk"] = f"{setting.get('roletalk', '')} ({commit})".strip()
    return {name: value for name, value in setting.items() if value}


def load_average() -> float | None:
    """Of the last minute; None where the system does not tell."""
    return os.getloadavg()[0] if sys.platform != "win32" else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1].strip() if found else ""


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=SOURCE, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("\n")[0].strip() if done.returncode == 0 else ""


def _go_module(name: str) -> str:
    """The version that go.mod asks for."""
    found = re.search(rf"/{re.escape(name)}\s+(v\S+)", _read(SOURCE / "go.mod"))
    return found[1] if found else ""
