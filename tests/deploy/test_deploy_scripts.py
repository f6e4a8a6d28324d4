"""The deployment scripts as typed: health, client, clean-up, signals; nothing stays behind.

The model server is the real one, of a tiny model, where a test is about serving; a small HTTP
server stands in where only what the script does with its processes is asked. Of torchrun, srun and
scontrol there are stand-ins with their rules.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from flywright.files import read_json
from flywright.model import Decoder, save
from flywright.spec import ModelSpec

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPT = DEPLOY / "inference.sh"

# answers any request with 404, as a server without a page does; also the client's Python
SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
words = sys.argv[1:]
if words[:2] != ["-m", "flywright.cli"]:
    exec(open(words[0]).read(), {"__name__": "__main__"})
    sys.exit()
class Nothing(BaseHTTPRequestHandler):
    def do_PUT(self): self.send_error(404)
    def log_message(self, *_): pass
HTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Nothing).serve_forever()
"""
# torchrun: the first machine's part is the real server without a mesh, the others' waits
TORCHRUN = """
import json, os, pathlib, sys, time
words = sys.argv[1:]
if words[:2] == ["-m", "torch.distributed.run"]:
    rank = words[words.index("--node-rank") + 1] if "--node-rank" in words else "0"
    (pathlib.Path(os.environ["SEEN"]) / f"{rank}.json").write_text(json.dumps({"words": words}))
    if rank != "0":
        time.sleep(100)
    words = words[words.index("-m", 1):]
    for name in ("--tp", "--pp"):
        at = words.index(name)
        words = words[:at] + words[at + 2:]
os.execv(os.environ["REAL"], [os.environ["REAL"], *words])
"""
# a task a machine; of a container what its mounts say
SRUN = """
import os, signal, subprocess, sys, time
words, options = sys.argv[1:], {}
while words[0].startswith("--"):
    name, _, value = words.pop(0)[2:].partition("=")
    options[name] = value
for mount in filter(None, options.get("container-mounts", "").split(",")):
    here, there = mount.split(":")[:2]
    assert os.path.isabs(here) and os.path.isdir(here), mount
    words = [word.replace(there, here, 1) if word.startswith(there) else word for word in words]
tasks = []
for i in range(int(os.environ["SLURM_NNODES"])):
    logs = [options[k].replace("%j", "7").replace("%n", str(i)) for k in ("output", "error")]
    said, wrong = (open(log, "w") for log in logs)
    env = {**os.environ, "SLURM_NODEID": str(i)}
    tasks.append(subprocess.Popen(words, env=env, stdout=said, stderr=wrong))
signal.signal(signal.SIGTERM, lambda *_: [task.send_signal(signal.SIGTERM) for task in tasks])
while any(task.poll() is None for task in tasks):
    if any(task.poll() for task in tasks):
        [task.terminate() for task in tasks]
    time.sleep(0.05)
sys.exit(max(code if code >= 0 else 128 - code for code in (task.wait() for task in tasks)))
"""
SCONTROL = "import sys; print('\\n'.join(sys.argv[3].split(',')))"


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("models") / "a policy"
    folder.mkdir()
    spec = ModelSpec(
        vocab_size=400, hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn_size=64,
        context_length=512, init_std=0.05,
    )  # fmt: skip
    save(Decoder(spec, seed=0), folder)
    tokenizer.save(folder)
    return folder


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(f"#!{sys.executable} -S\n{text}")
    path.chmod(0o755)
    return path


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    return os.environ | {
        "PORT": free_port(),
        "PYTHON": sys.executable,
        "POLL_SECONDS": "0.1",
        "GRACE_SECONDS": "20",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def stand_in(tmp_path: Path, env: dict[str, str]) -> dict[str, str]:
    return env | {"PYTHON": str(program(tmp_path / "bin", "python", SERVER))}


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_left():
    """Whatever a test that failed has left is ended, by the sessions that it started."""
    yield
    while STARTED:
        for number in of_session(STARTED.pop().pid):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def start(env: dict[str, str], *words: Path | str, script: Path = SCRIPT) -> subprocess.Popen:
    process = subprocess.Popen(
        ["bash", script, *words], env=env, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
        # a shell cannot trap what was ignored when it began, as in a job in the background
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    STARTED.append(process)
    return process


def of_session(number: int) -> dict[int, str]:
    """Command lines of a session's processes by number, which are all that a script has started."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(") ")[2].split()
            if int(fields[3]) == number and fields[0] != "Z":
                said = (path.parent / "cmdline").read_text().replace("\0", " ")
                found[int(path.parent.name)] = said
    return found


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    """Status, stdout and stderr; of its processes none is left."""
    process.wait(timeout=90)
    assert of_session(process.pid) == {}
    return process.returncode, *process.communicate()


def until(seen, process: subprocess.Popen) -> None:
    while not seen():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def answers(env: dict[str, str]) -> bool:
    asked = ["curl", "-s", "-X", "PUT", f"http://127.0.0.1:{env['PORT']}"]
    return not subprocess.run(asked, capture_output=True).returncode


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_sound(path: Path) -> None:
    subprocess.run(["bash", "-n", path], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", path], check=True)
    assert "\nset -euo pipefail\n" in path.read_text()


def test_one_machine_serves_is_asked_and_is_left_clean(env, model) -> None:
    env["SERVE_OPTIONS"] = "--cache-gib 0.5"
    status, said, wrong = finish(start(env, model, DEPLOY / "call_server.py"))
    assert status == 0, wrong
    assert said.strip() and "<extra_id_0>" not in said  # an answer without its prompt
    assert f"waiting for 127.0.0.1:{env['PORT']}" in wrong
    assert "--cache-gib 0.5" in wrong
    with socket.socket() as tried:
        assert tried.connect_ex(("127.0.0.1", int(env["PORT"])))  # nobody answers there


def test_without_a_client_it_serves_until_it_is_stopped(stand_in, model) -> None:
    process = start(stand_in, model)
    until(lambda: answers(stand_in), process)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    assert finish(process)[0] == 143


@pytest.mark.parametrize(
    ("ending", "status"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_status_is_the_clients(stand_in, model, tmp_path, ending, status) -> None:
    (tmp_path / "client.py").write_text(ending)
    assert finish(start(stand_in, model, tmp_path / "client.py"))[0] == status


STUBBORN = """
import os, pathlib, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "100"])
pathlib.Path(os.environ["SEEN"]).touch()
time.sleep(100)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_all_even_what_does_not_listen(stand_in, model, tmp_path, sent) -> None:
    (tmp_path / "client.py").write_text(STUBBORN)
    env = stand_in | {"SEEN": str(tmp_path / "seen"), "GRACE_SECONDS": "1"}
    process = start(env, model, tmp_path / "client.py")
    until((tmp_path / "seen").exists, process)
    assert len(of_session(process.pid)) >= 4  # script, server, client and its child
    process.send_signal(sent)
    assert finish(process)[0] == 128 + sent


def test_what_a_client_leaves_running_is_ended(stand_in, model, tmp_path) -> None:
    (tmp_path / "client.py").write_text("import subprocess; subprocess.Popen(['sleep', '100'])")
    stand_in["GRACE_SECONDS"] = "1"
    assert finish(start(stand_in, model, tmp_path / "client.py"))[0] == 0


def test_a_server_that_does_not_come_up_is_not_waited_for(env, model, tmp_path) -> None:
    for ended, told in ((5, 5), (0, 1)):
        env["PYTHON"] = str(program(tmp_path / "bin", "python", f"raise SystemExit({ended})"))
        status, _, wrong = finish(start(env, model, DEPLOY / "call_server.py"))
        assert status == told
        assert f"the server ended before it answered (status {ended})" in wrong


def test_waiting_has_an_end(env, model, tmp_path) -> None:
    slow = str(program(tmp_path / "bin", "python", "import time; time.sleep(100)"))
    env |= {"PYTHON": slow, "WAIT_SECONDS": "1"}
    status, _, wrong = finish(start(env, model))
    assert status == 1 and "no answer from" in wrong


def test_a_stop_does_not_wait_for_the_next_look(env, model, tmp_path) -> None:
    slow = str(program(tmp_path / "bin", "python", "import time; time.sleep(100)"))
    process = start(env | {"PYTHON": slow, "POLL_SECONDS": "99"}, model)
    until(lambda: "sleep 99 " in of_session(process.pid).values(), process)
    process.terminate()
    assert finish(process)[0] == 143


def test_another_server_is_not_taken_for_ours(stand_in, model) -> None:
    other = start(stand_in, model)
    until(lambda: answers(stand_in), other)
    status, _, wrong = finish(start(stand_in, model, DEPLOY / "call_server.py"))
    assert status == 2 and "something else answers there" in wrong
    assert other.poll() is None
    other.terminate()
    finish(other)


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        ([], {}, "usage"),
        (["nowhere"], {}, "this is not: 'nowhere'"),
        ([".", "no-client.py"], {}, "no-client.py: no such client"),
        (["."], {"TP": "3", "NODES": "2", "HEAD": "a"}, "3 processes do not divide among 2"),
        (["."], {"TP": "4", "NODES": "2"}, "HEAD: name the first of the 2 machines"),
    ],
)
def test_bad_usage_starts_nothing(env, words, given, said) -> None:
    status, _, wrong = finish(start(env | given, *words))
    assert (status, wrong.count("\n")) == (2, 1) and said in wrong


@pytest.fixture
def torchrun(tmp_path: Path, env: dict[str, str]) -> dict[str, str]:
    stand_in = str(program(tmp_path / "bin", "python", TORCHRUN))
    return env | {"PYTHON": stand_in, "REAL": sys.executable, "SEEN": str(tmp_path)}


def test_several_machines_start_together_and_end_with_the_first(torchrun, model, tmp_path) -> None:
    env = torchrun | {"NODES": "2", "HEAD": "localhost", "TP": "8", "PP": "2"}
    other = start(env | {"NODE_RANK": "1"}, model)
    first = start(env | {"NODE_RANK": "0"}, model, DEPLOY / "call_server.py")
    status, said, wrong = finish(first)
    assert status == 0 and said.strip(), wrong
    status, said, wrong = finish(other)
    assert (status, said) == (0, "") and "is gone" in wrong, wrong
    for rank in ("0", "1"):
        assert read_json(tmp_path / f"{rank}.json")["words"] == [
            "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "8",
            "--node-rank", rank, "--master-addr", "localhost", "--master-port", "29400",
            "-m", "flywright.cli", "serve", str(model), "--host", "0.0.0.0",
            "--port", env["PORT"], "--tp", "8", "--pp", "2",
        ]  # fmt: skip


@pytest.fixture
def job(torchrun, model, tmp_path) -> dict[str, str]:
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        program(tmp_path / "bin", name, text)
    return torchrun | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "MODEL": str(model),
        "SCRIPTS": str(DEPLOY), "LOGS": str(tmp_path), "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "localhost,node2",
    }  # fmt: skip


@pytest.mark.parametrize("container", ["", "image.sqsh"])
def test_a_slurm_job_is_asked_and_ends(job, model, tmp_path, container) -> None:
    job |= {"CONTAINER": container, "CLIENT": "client.py", "SCRIPTS": str(tmp_path)}
    job["REAL"] = str(program(tmp_path / "bin", "server", SERVER))
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "client.py").write_text("print('an answer')")
    status, _, wrong = finish(start(job, script=DEPLOY / "slurm.sh"))
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.out")}
    assert status == 0, (wrong, logs)
    assert sorted(logs) == ["error-7-0.out", "error-7-1.out", "slurm-7-0.out", "slurm-7-1.out"]
    assert (logs["slurm-7-0.out"], logs["slurm-7-1.out"]) == ("an answer\n", "")
    words = read_json(tmp_path / "1.json")["words"]
    assert words[words.index("serve") + 1] == str(model)
    assert words[-4:] == ["--tp", "8", "--pp", "2"]
    assert words[words.index("--master-port") + 1] == "20007"


def test_a_cancelled_slurm_job_leaves_nothing(job, tmp_path) -> None:
    shutil.copy(SCRIPT, tmp_path)
    job |= {"SCRIPTS": str(tmp_path), "CLIENT": "wait.py", "SEEN": str(tmp_path / "seen")}
    job |= {"REAL": str(program(tmp_path / "bin", "server", SERVER)), "GRACE_SECONDS": "1"}
    (tmp_path / "seen").mkdir()
    (tmp_path / "wait.py").write_text(STUBBORN.replace('"SEEN"]', '"SEEN"], "called"'))
    process = start(job, script=DEPLOY / "slurm.sh")
    until((tmp_path / "seen" / "called").exists, process)
    process.terminate()
    assert finish(process)[0] == 143


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"MODEL": "nowhere"}, "this is none: 'nowhere'"),
        ({"CLIENT": "none.py"}, "holds no none.py"),
        ({"SLURM_JOB_ID": ""}, "submit this with sbatch"),
    ],
)
def test_a_slurm_job_says_what_it_lacks(job, given, said) -> None:
    status, _, wrong = finish(start(job | given, script=DEPLOY / "slurm.sh"))
    assert status and said in wrong and wrong.count("\n") == 1


def test_the_slurm_script_asks_for_the_cards_machines() -> None:
    text = (DEPLOY / "slurm.sh").read_text()
    asked = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", text, re.M))
    assert (asked["nodes"], asked["ntasks-per-node"], asked["gpus-per-node"]) == ("2", "1", "8")
