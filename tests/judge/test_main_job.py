"""The main job with the real docker CLI, word by word."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

from tests.judge.harness import IMAGE, Engine, running, until


def test_the_main_job(engine: Engine):
    engine.ok("network", "create", "examplenetwork")
    container = engine.ok("run", "-id", "--network", "examplenetwork", "--name", "example", IMAGE, "sh")
    assert re.fullmatch("[0-9a-f]{64}", container)
    row = json.loads(engine.ok("ps", "--no-trunc", "--format", "{{json .}}"))
    assert (row["ID"], row["Names"], row["State"], row["Image"]) == (container, "example", "running", IMAGE)

    shown = engine.inspect("example")
    assert shown["GraphDriver"]["Name"] == "windowsfilter"
    assert shown["GraphDriver"]["Data"]["ID"] == container
    assert shown["GraphDriver"]["Data"]["dir"] == f"{engine.data}/windowsfilter/{container}"
    assert os.readlink(f"/proc/{shown['State']['Pid']}/exe").endswith("busybox")
    endpoint = shown["NetworkSettings"]["Networks"]["examplenetwork"]
    assert endpoint["Gateway"].endswith(".0.1")
    assert endpoint["IPAddress"].endswith(".0.2")
    assert re.fullmatch("02:42(:[0-9a-f]{2}){4}", endpoint["MacAddress"])
    assert engine.inspect("examplenetwork")["Containers"][container]["Name"] == "example"

    parents = json.loads((engine.data / "windowsfilter" / container / "layerchain.json").read_text())
    image = engine.inspect(IMAGE)
    assert parents == [image["GraphDriver"]["Data"]["dir"]]

    engine.ok("stop", "-t", "1", "example")
    assert engine.inspect("example")["State"]["ExitCode"] == 137
    engine.ok("rm", "example")
    engine.ok("network", "rm", "examplenetwork")


def test_attach_to_what_runs(engine: Engine):
    engine.ok("run", "-id", "--name", "example", IMAGE, "sh")
    done = engine.docker("attach", "example", data=b"echo from inside; exit 4\n")
    assert (done.code, done.stdout) == (4, "from inside\n")
    assert engine.ok("logs", "example") == "from inside"


def test_echo(engine: Engine):
    assert engine.ok("run", "--rm", IMAGE, "echo", "hi") == "hi"


def test_three_megabytes_through_cat_are_byte_exact(engine: Engine):
    data = os.urandom(3 << 20)
    assert engine.docker("run", "-i", "--rm", IMAGE, "cat", data=data).raw == data


def test_fifty_megabytes_out_with_a_slow_reader_lose_nothing(engine: Engine):
    argv = ["docker", "run", "--rm", IMAGE, "sh", "-c", "dd if=/dev/zero bs=1M count=50 2>/dev/null"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=engine.environment)
    total = 0
    with process.stdout as out:
        while data := out.read(1 << 16):
            assert not data.strip(b"\0")
            total += len(data)
            if total < 2 << 20:
                time.sleep(0.005)  # the reader is slow here: that is what is tested
    assert process.wait(20) == 0
    assert total == 50 << 20


def test_streams_stay_apart(engine: Engine):
    done = engine.docker("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["nosuch"], 127),
        (["/no/such"], 127),
        (["/etc/passwd"], 126),
        (["/bin"], 126),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
    ],
)
def test_exit_codes(engine: Engine, command, code):
    assert engine.docker("run", "--rm", IMAGE, *command).code == code
    assert engine.ok("ps", "-aq") == ""


def test_what_the_process_gets(engine: Engine):
    script = "hostname; echo $A $HOSTNAME; pwd; id -u; id -g; cat /proc/1/comm; true"
    flags = ["-h", "box", "-e", "A=b", "-w", "/made/for/me", "-u", "1000:5", "--entrypoint", "sh"]
    lines = engine.ok("run", "--rm", *flags, IMAGE, "-c", script).splitlines()
    assert lines[:5] == ["box", "b box", "/made/for/me", "1000", "5"]
    assert lines[5] == "sh"


def test_security_defaults_are_dockerds(engine: Engine):
    shown = engine.ok("run", "--rm", IMAGE, "cat", "/proc/self/status")
    status = dict(line.split(":\t", 1) for line in shown.splitlines() if ":\t" in line)
    assert status["CapBnd"] == status["CapEff"] == "00000000a80425fb"
    assert status["Seccomp"] == "2"
    denied = engine.docker(
        "run", "--rm", IMAGE, "sh", "-c", "unshare -m true; mount -t tmpfs x /mnt; echo 1 >/proc/sys/vm/swappiness"
    )
    assert denied.code != 0
    assert denied.stderr.count("not permitted") + denied.stderr.count("denied") + denied.stderr.count("Read-only") >= 3


def test_a_limit_of_memory_kills(engine: Engine):
    engine.docker("run", "--name", "hungry", "-m", "16m", IMAGE, "sh", "-c", "tail /dev/zero")
    state = engine.inspect("hungry")["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)


def test_a_size_bounds_the_scratch_volume(engine: Engine):
    command = ["run", "--rm", "--storage-opt", "size=20M", IMAGE, "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=64"]
    done = engine.docker(*command)
    assert done.code != 0
    assert "No space left" in done.stderr


class Terminal:
    """A docker command on a pseudo-terminal."""

    def __init__(self, engine: Engine, *arguments: str, rows: int = 33, columns: int = 101) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe("docker", ["docker", *arguments], engine.environment)
        self.resize(rows, columns)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def expect(self, text: bytes, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.fd, 65536)
                except OSError:
                    break
        assert text in self.seen, self.seen
        self.seen = self.seen.partition(text)[2]

    def wait(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def test_a_terminal_with_resize(engine: Engine):
    terminal = Terminal(engine, "run", "-it", "--name", "term", IMAGE, "sh")
    terminal.expect(b"/ # ")
    terminal.type(b"tty; echo $TERM\n")
    terminal.expect(b"/dev/pts/0")
    terminal.expect(b"xterm")
    terminal.resize(44, 122)

    def shows_the_size() -> bool:
        terminal.type(b"stty size\n")
        terminal.expect(b"/ # ")
        return b"44 122" in terminal.seen or _read_more(terminal, b"44 122")

    until(shows_the_size, 20, "the terminal's size")
    terminal.type(b"exit 3\n")
    assert terminal.wait() == 3


def _read_more(terminal: Terminal, text: bytes) -> bool:
    while select.select([terminal.fd], [], [], 0.2)[0]:
        terminal.seen += os.read(terminal.fd, 65536)
    return text in terminal.seen


def test_detach_keys_leave_it_running(engine: Engine):
    terminal = Terminal(engine, "run", "-it", "--name", "term", IMAGE, "sh")
    terminal.expect(b"/ # ")
    terminal.type(b"\x10\x11")
    assert terminal.wait() == 0
    assert engine.inspect("term")["State"]["Running"]
    again = Terminal(engine, "attach", "--detach-keys", "ctrl-a,d", "term")

    def answers() -> bool:
        again.type(b"echo still $((20 + 2))\n")  # what is typed before the client has the terminal is lost
        return _read_more(again, b"still 22")

    until(answers, 20, "the shell's answer")
    again.type(b"\x01d")
    assert again.wait() == 1  # the client itself says "read escape sequence"
    assert engine.inspect("term")["State"]["Running"]


def test_ctrl_c_ends_what_runs_in_the_foreground(engine: Engine):
    argv = [
        "docker",
        "run",
        "--rm",
        "--name",
        "fore",
        IMAGE,
        "sh",
        "-c",
        "trap 'exit 9' INT; while :; do sleep 0.05; done",
    ]
    process = subprocess.Popen(argv, env=engine.environment)
    until(lambda: engine.docker("ps", "-q", "--filter", "name=fore").stdout, what="the container")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 9


def test_runc_does_the_same():
    with running("--default-runtime", "runc") as engine:
        assert engine.ok("info", "--format", "{{.DefaultRuntime}}") == "runc"
        data = os.urandom(1 << 20)
        assert engine.docker("run", "-i", "--rm", IMAGE, "cat", data=data).raw == data
        assert engine.docker("run", "--rm", IMAGE, "nosuch").code == 127
        assert engine.docker("run", "--rm", IMAGE, "/etc/passwd").code == 126
        assert engine.docker("run", "--rm", IMAGE, "sh", "-c", "exit 3").code == 3


def test_two_engines_do_not_see_each_other(engine: Engine):
    with running() as other:
        engine.ok("run", "-d", "--name", "same", IMAGE, "sleep", "100")
        other.ok("run", "-d", "--name", "same", IMAGE, "sleep", "100")
        assert engine.inspect("same")["Id"] != other.inspect("same")["Id"]
        assert len(other.ok("ps", "-q").split()) == 1
        other.ok("rm", "-f", "same")
        assert engine.inspect("same")["State"]["Running"]
