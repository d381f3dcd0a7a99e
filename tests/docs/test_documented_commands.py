"""Every command that a page shows is run: a page is one shell session, from its first `console` block to its last.

A session begins in a directory with the files that the pages speak of (`digits.joblib`, `labels.json`, …), with a
running platform at MODELYARD_URL. `modelyard serve` and `modelyard up` are started in the background on free ports; the
addresses in later commands are changed accordingly, and after `up` they go to that platform. `# exit N` after a command
says that it ends with N, `# until Ctrl-C` that it runs beside the others until the page ends, and then ends with 0.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modelyard.testing.platform import Command, Platform, running_platform

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"\s+# exit (\d+)$")
BESIDE = re.compile(r"\s+# until Ctrl-C$")
NOT_HERE = ("make ", "git ", "pip ", "uv ", "cd ", "sudo ")
"""Commands that build the environment in which this test runs; CI runs them itself."""


def pages() -> Iterator[Path]:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if commands_of(page):
            yield page


def commands_of(page: Path) -> list[str]:
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [line[2:].strip() for line in lines if line.startswith("$ ")]
    return [command for command in commands if not command.startswith(NOT_HERE)]


class Session:
    """One page's shell: a directory, a platform, and what runs in the background."""

    def __init__(self, directory: Path, platform: Platform, stack: ExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.inference = "127.0.0.1:8080"
        self.served = platform.inference_url.removeprefix("http://")
        self.environment = {
            **os.environ,
            "MODELYARD_URL": platform.control_url,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DATA": str(platform.places.data),
        }

    def run(self, command: str) -> None:
        if BESIDE.search(command):
            self.beside(BESIDE.sub("", command))
            return
        wanted = EXIT.search(command)
        command = EXIT.sub("", command)
        if command.split()[:2] in (["modelyard", "serve"], ["modelyard", "up"]) and wanted is None:
            self.start(command.split()[1:])
            return
        command = command.replace("127.0.0.1:8080", self.served)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        code = int(wanted.group(1)) if wanted else 0
        assert done.returncode == code, f"$ {command}\n{done.stdout}{done.stderr}"

    def start(self, arguments: list[str]) -> None:
        """Run `serve` or `up` until the page ends."""
        if arguments[0] == "up":
            arguments = [
                *arguments,
                "--control-port",
                "0",
                "--inference-port",
                "0",
                *([] if "--data" in arguments else ["--data", "up"]),
            ]
        else:
            arguments = [*_without_port(arguments), "--port", "0"]
        running = Command(arguments, self.directory, self.directory / f"{arguments[0]}.log")
        running.start()
        self.stack.callback(running.stop)
        line = running.wait_for("inference  http" if arguments[0] == "up" else "ready    ")
        self.served = _address(line)
        if arguments[0] == "up":
            self.environment["MODELYARD_URL"] = f"http://{_address(running.wait_for('control    http'))}"
            self.environment["DATA"] = str(self.directory / arguments[arguments.index("--data") + 1])

    def beside(self, command: str) -> None:
        """Run a command until the page ends, as if in another terminal."""
        output = self.directory / "beside.log"
        with output.open("wb") as stream:
            running = subprocess.Popen(
                shlex.split(command), cwd=self.directory, env=self.environment, stdout=stream, stderr=stream
            )

        def interrupt() -> None:
            running.send_signal(signal.SIGINT)
            try:
                code = running.wait(60)
            finally:
                running.kill()
            assert code == 0, f"$ {command}\n{output.read_text()}"

        self.stack.callback(interrupt)


def _address(line: str) -> str:
    found = re.search(r"http://([\d.:]+)", line)
    assert found is not None
    return found.group(1)


def _without_port(arguments: list[str]) -> list[str]:
    if "--port" not in arguments:
        return arguments
    place = arguments.index("--port")
    return arguments[:place] + arguments[place + 2 :]


@pytest.mark.platform
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", list(pages()), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_works_as_it_stands(page: Path, tmp_path: Path, documented_files: Path) -> None:
    with ExitStack() as stack:
        platform = stack.enter_context(running_platform(tmp_path))
        directory = tmp_path / "session"
        subprocess.run(["cp", "-r", str(documented_files), str(directory)], check=True)
        session = Session(directory, platform, stack)
        for command in commands_of(page):
            session.run(command)
