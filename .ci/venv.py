"""Make .venv and install this project into it: `python3 .ci/venv.py [--group GROUP]...`; `--pins` renews the pins.

Needs Python 3.11 and the network, nothing else. pip brings uv, and uv installs fast from the pins of constraints.txt,
with the settings that pip was given (index, certificate, proxy); where uv cannot, pip does it more slowly.
Debian ships python3 without ensurepip. There, pip comes from Debian's own signed package, unpacked into a temporary
folder: nothing outside .venv changes, and root is not needed.
"""

from __future__ import annotations  # an older Python gets as far as being told that it is older

import ast
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check"]
CURE = "install them first: apt-get install python3-venv"

# Every version for every platform, and not a word about where they come from.
PINS = (
    *("--quiet", "--upgrade", "--universal", "--python-version", "3.11", "--output-file", "constraints.txt"),
    *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--no-emit-package", "tidings"),
    *("pyproject.toml", "--group", "setup", "--group", "dev"),
)

# What pip calls a setting -> what uv reads from the environment.
UV_READS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "no-index": "UV_OFFLINE",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}


def main(arguments: list[str]) -> int:
    """Make what is missing, then install the project with the groups named in the arguments."""
    if sys.version_info < (3, 11):  # noqa: UP036 - an older one is told so, in one line
        return fail(f"tidings needs Python 3.11 or newer, this is {sys.version.split()[0]}: try PYTHON=python3.11")
    os.chdir(ROOT)
    if not PYTHON.exists() or run(*PIP, "--version", quiet=True) != 0:
        if not make_venv():
            return fail(f"this python3 cannot make an environment with pip in it; {CURE}")
        run(*PIP, "install", "--quiet", "--constraint", "constraints.txt", "pip", "uv")
    uv = [str(PYTHON), "-m", "uv", "pip"]
    if arguments == ["--pins"]:
        return run(*uv, "compile", *PINS, env=uv_environment())
    what = ["--editable", ".", "--constraint", "constraints.txt", *arguments]
    aim = ["--python", str(PYTHON), "--build-constraint", "constraints.txt"]
    if run(*uv, "install", *aim, *what, quiet=True, env=uv_environment()) == 0:
        return 0
    return run(*PIP, "install", "--quiet", *what)


def make_venv() -> bool:
    """Make .venv with a pip in it, by ensurepip or, where Debian left that out, by Debian's own pip."""
    if run(sys.executable, "-m", "venv", "--clear", str(VENV), quiet=True) == 0:
        return True
    if run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV), quiet=True) != 0:
        return False
    if run(sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "--quiet", "pip", quiet=True) == 0:
        return True
    with tempfile.TemporaryDirectory() as folder:
        return pip_from_debian(Path(folder))


def pip_from_debian(folder: Path) -> bool:
    """Unpack Debian's pip, which carries its own root certificates, and let it install pip."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    apt = ["apt-get", "-qq", "-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache"]
    if os.getuid() == 0:
        apt += ["-o", "APT::Sandbox::User=root"]  # apt's own user cannot write into our folder
    try:
        run(*apt, "update")
        run(*apt, "download", "python3-pip-whl", cwd=folder)
        for package in folder.glob("*.deb"):
            run("dpkg-deb", "--extract", str(package), str(folder))
    except FileNotFoundError:  # not a Debian
        return False
    wheels = list(folder.glob("usr/share/python-wheels/pip-*.whl"))
    return bool(wheels) and run(str(PYTHON), f"{wheels[0]}/pip", "install", "--quiet", "pip") == 0


def uv_environment() -> dict[str, str]:
    """Say to uv what pip was told by its files and its environment; what uv was told itself comes first."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=False)
    settings: dict[str, str] = {}
    for scope in ("global.", "install.", ":env:."):  # the later one wins, as in pip
        for line in listed.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(scope):
                settings[name.removeprefix(scope)] = str(ast.literal_eval(value))
    if "find-links" in settings:  # pip passes over folders that are not there, uv refuses them
        links = (link for link in settings["find-links"].split() if "://" in link or Path(link).is_dir())
        settings["find-links"] = ",".join(links)
    told = {UV_READS[name]: value for name, value in settings.items() if name in UV_READS and value}
    return {**told, **os.environ}


def run(*command: str, quiet: bool = False, cwd: Path = ROOT, env: dict[str, str] | None = None) -> int:
    """Run a command and return its exit code; a quiet one says nothing, as another way follows when it fails."""
    output = subprocess.DEVNULL if quiet else None
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
    )
    return done.returncode


def fail(reason: str) -> int:
    """Print one line and return the exit code of a failure."""
    print(f"error: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
