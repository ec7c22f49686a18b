"""Hosts for tests of the multirunner: SSH servers on this machine, each with a home of its own.

    python -m tests.loopback_hosts 2 sh multirunner/multirunner.sh HOSTS multirunner/all_jobs.sh

starts two of them, writes their hosts file, and runs the command with the word HOSTS replaced by
its path. Keys, ports, homes and settings live in a temporary folder; nobody's ~/.ssh is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SSHD_PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"  # not in a user's PATH


def missing_programs() -> list[str]:
    """Programs that the hosts and the multirunner need and this machine lacks."""
    wanted = ("sshd", "ssh", "ssh-keygen", "parallel", "flock", "perl")
    return [name for name in wanted if shutil.which(name, path=SSHD_PATHS) is None]


class LoopbackHosts:
    """`count` SSH servers named host1, host2, ...; `environment` makes ssh and parallel find them.

    Each has the home folder `<folder>/<name>`, which its `~` and TMPDIR are. To be used in a `with`
    statement: at its end the servers and all they started are killed.
    """

    def __init__(self, folder: Path, count: int):
        self.folder = Path(folder)
        self.names = [f"host{n}" for n in range(1, count + 1)]
        self.servers: dict[str, subprocess.Popen] = {}
        self.ssh_config = self.folder / "ssh_config"
        self.environment = {
            **os.environ,
            "PARALLEL_SSH": f"ssh -F {self.ssh_config}",
            "PARALLEL_HOME": str(self.folder / "parallel"),
        }

    def __enter__(self) -> LoopbackHosts:
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)  # where sshd run by root wants to chroot to
        self._make_key(self.folder / "user_key")
        hosts = [self._start(name) for name in self.names]
        self.ssh_config.write_text("\n".join(hosts))
        return self

    def __exit__(self, *_) -> None:
        for name in self.names:
            self.kill(name)

    def home(self, name: str) -> Path:
        return self.folder / name

    def kill(self, name: str) -> None:
        """As when the host loses power: the server, its sessions and their jobs are gone."""
        server = self.servers.pop(name, None)
        if server is None:
            return
        for pid in [server.pid, *processes_of(self.home(name))]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()

    def _make_key(self, path: Path) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path]
        subprocess.run(command, check=True)

    def _start(self, name: str) -> str:
        """Start one server; returns what ssh must know of it."""
        home = self.home(name)
        (home / "tmp").mkdir(parents=True)
        self._make_key(self.folder / f"{name}_key")
        port = free_port()
        config = self.folder / f"{name}_sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {self.folder}/{name}_key\n"
            f"AuthorizedKeysFile {self.folder}/user_key.pub\nStrictModes no\nUsePAM no\n"
            "PidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n"
            f"SetEnv HOME={home} TMPDIR={home}/tmp\n"
        )
        sshd = shutil.which("sshd", path=SSHD_PATHS)  # it restarts itself, so wants its full path
        log = self.folder / f"{name}_sshd.log"
        self.servers[name] = subprocess.Popen([sshd, "-D", "-f", config, "-E", log])
        deadline = time.monotonic() + 20
        while not answers(port):
            if self.servers[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd did not start: {log.read_text()}")
            time.sleep(0.05)
        return (
            f"Host {name}\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n"
            f" IdentityFile {self.folder}/user_key\n IdentitiesOnly yes\n"
            f" UserKnownHostsFile {self.folder}/known_hosts\n StrictHostKeyChecking no\n"
            " LogLevel ERROR\n"
        )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def processes_of(home: Path) -> list[int]:
    """Ids of all processes in whose environment HOME is `home`."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # ended meanwhile, or somebody else's
            if f"HOME={home}".encode() in variables:
                pids.append(int(entry.name))
    return pids


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, help="how many hosts")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="HOSTS: their hosts file")
    return parser


def main(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if args.count < 1 or not args.command:
        parser.error("give a number of hosts above 0, and a command")
    if missing_programs():
        parser.error(f"install {', '.join(missing_programs())} first")
    with tempfile.TemporaryDirectory() as folder, LoopbackHosts(Path(folder), args.count) as hosts:
        hosts_file = Path(folder) / "hosts.txt"
        hosts_file.write_text("".join(f"{name}\n" for name in hosts.names))
        command = [str(hosts_file) if word == "HOSTS" else word for word in args.command]
        process = subprocess.Popen(command, env=hosts.environment)
        try:
            return process.wait()
        except KeyboardInterrupt:
            return process.wait()


if __name__ == "__main__":
    the_parser = get_args_parser()
    sys.exit(main(the_parser.parse_args(), the_parser))
