"""Training scripts started in milliseconds: a process that has imported all, and forks.

The network's ResNets are those of tiny_network.py; the rest is what a user runs.
`python tests/training_server.py SCRIPT ...` runs one script so, for torchrun; `Server` starts many.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
LIMIT_S = 300  # of a script: what hangs ends with the stacks of its threads in its output


class Server:
    """Starts scripts and waits for them. `folder` is for their output; `video` is any that loads,
    so that compiled code is in memory before the first fork."""

    def __init__(self, folder, video):
        self.folder, self.count = Path(folder), 0
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(video)],
            cwd=REPO,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()

    def _ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *command, processes=1, limit=None):
        """A Job of `processes` ranks; no file of theirs may grow over `limit` bytes."""
        self.count += 1
        output = self.folder / f"output{self.count}"
        command = list(map(str, command))
        pids = self._ask(command=command, processes=processes, output=str(output), limit=limit)
        return Job(self, pids, output)

    def run(self, *command, **settings):
        """Run to the end; returns (exit code of rank 0, output of all)."""
        job = self.start(*command, **settings)
        return max(job.wait(), key=abs), job.output()


class Job:
    def __init__(self, server, pids, output):
        self.server, self.pids, self._output = server, pids, output

    def kill(self, number, rank=0):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pids[rank], number)

    def wait(self):
        """Exit codes of all ranks, minus the signal where one ended a rank."""
        return [self.server._ask(wait=pid) for pid in self.pids]

    def wait_for(self, path):
        """Until the job has written a file. A lock that nobody holds is empty."""
        end = time.monotonic() + 60
        while not path.exists() or not path.stat().st_size:
            assert time.monotonic() < end, self.output()
            time.sleep(0.005)

    def output(self):
        return self._output.read_text()


def serve(video):
    """Answer requests, a line of JSON each, until there are no more."""
    import_all()
    from coviar import load_clip

    load_clip(video, [(0, 1)], encode=True, flip=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = fork(**request)
        print(json.dumps(answer), flush=True)


def fork(command, processes, output, limit):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        code = 1
        try:
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            if processes > 1:
                ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
                os.environ.update({key: str(value) for key, value in ranks.items()})
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            if limit is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            code = run_script(*command)
        finally:
            os._exit(code)
    return pids


def run_script(*command):
    """What `python COMMAND` does, a script or `-m MODULE`; returns its exit code."""
    try:
        if command[0] == "-m":
            sys.argv = list(command[1:])
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="runpy")  # of imports before this one
                runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(command)
            runpy.run_path(str(REPO / command[0]), run_name="__main__")
        return 0
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def import_all():
    sys.path.insert(0, str(REPO))
    import torch
    from tiny_network import tiny_resnet

    import models.team_net

    for name in ("train_team_net", "train_prog_kd", "save_logits", "training.views"):
        importlib.import_module(name)
    torch.set_num_threads(1)
    models.team_net.build_network = tiny_resnet


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        import_all()
        sys.exit(run_script(*sys.argv[1:]))
