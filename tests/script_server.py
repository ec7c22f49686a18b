"""Scripts started in milliseconds: forks of a process that has imported what they need.

`Server.run` and `start` are for training scripts: all is imported, and the network's ResNets are
those of tiny_network.py. `Server.call` runs any script as a user does: only the libraries are
imported. `python tests/script_server.py SCRIPT ...` trains one, for torchrun.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import runpy
import signal
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
    """`folder` is for the output of scripts; `video` is any that loads, so that compiled code is in
    memory before the first fork of a training script."""

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
            self.process.wait(60)
        finally:
            self.process.kill()

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def _fork(self, *command, **settings):
        self.count += 1
        output = self.folder / f"output{self.count}"
        pids = self.ask(command=list(map(str, command)), output=str(output), **settings)
        return pids, output

    def call(self, *command, cwd=REPO):
        """As subprocess.run with captured output, of `python COMMAND`."""
        (pid,), output = self._fork(*command, cwd=str(cwd))
        code = self.ask(wait=pid)
        printed, errors = output.read_text(), Path(f"{output}.err").read_text()
        return subprocess.CompletedProcess(command, code, printed, errors)

    def start(self, *command, **settings):
        """A Job of `processes` ranks, 1 unless given; no file of theirs may grow over `limit`
        bytes; group=True makes it a process group of its own."""
        return Job(self, *self._fork(*command, training=True, **settings))

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
        return [self.server.ask(wait=pid, training=True) for pid in self.pids]

    def wait_for(self, path):
        """Until the job has written a file. A lock that nobody holds is empty."""
        end = time.monotonic() + 60
        while not path.exists() or not path.stat().st_size:
            assert time.monotonic() < end, self.output()
            time.sleep(0.005)

    def output(self):
        return self._output.read_text()


def serve(video):
    """Answer requests, a line of JSON each, until there are no more. Those of training are handed
    on to a process that has imported all."""
    import_libraries()
    requests, answers = os.pipe(), os.pipe()
    if not os.fork():
        os.close(requests[1])
        with open(requests[0]) as lines, open(answers[1], "w") as out:
            import_all()
            from coviar import load_clip

            load_clip(video, [(0, 1)], encode=True, flip=True)
            for line in lines:
                print(answer(json.loads(line)), file=out, flush=True)
        os._exit(0)
    os.close(answers[1])
    with open(requests[1], "w") as training, open(answers[0]) as answered:
        for line in sys.stdin:
            request = json.loads(line)
            if request.pop("training", False):
                print(json.dumps(request), file=training, flush=True)
                print(answered.readline(), end="", flush=True)
            else:
                print(answer(request), flush=True)
    os._exit(0)


def answer(request):
    if "wait" in request:
        _, status = os.waitpid(request["wait"], 0)
        return json.dumps(os.waitstatus_to_exitcode(status))
    return json.dumps(fork(**request))


def fork(command, output, processes=1, limit=None, group=False, cwd=None):
    """Its output goes to one file; with a cwd it runs as for a user, and stderr goes to another."""
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
            if group:
                os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            os.dup2(os.open(output, flags), 1)
            os.dup2(os.open(f"{output}.err", flags) if cwd else 1, 2)
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            # Tests in the background of a script are deaf to Ctrl-C; what they start is not.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if processes > 1:
                ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
                os.environ.update({key: str(value) for key, value in ranks.items()})
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            if limit is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            if cwd:
                os.chdir(cwd)
                sys.path[0] = cwd if command[0] == "-m" else str(Path(command[0]).resolve().parent)
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
            here = Path(command[0])
            runpy.run_path(str(here if here.exists() else REPO / here), run_name="__main__")
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def import_libraries():
    names = ("av", "matplotlib.figure", "numba", "pandas", "scipy.optimize", "scipy.stats")
    for name in (*names, "torch", "torchvision", "tqdm"):
        importlib.import_module(name)


def import_all():
    sys.path.insert(0, str(REPO))
    import torch

    import models.team_net
    from tests.tiny_network import tiny_resnet

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
