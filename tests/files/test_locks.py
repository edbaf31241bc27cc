"""One process writes; several read; who died holds nothing."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from mechvit.files import Lock
from mechvit.files import locks as module

HOLD = """
import sys, time
from pathlib import Path
from mechvit.files import Lock
lock = Lock(Path(sys.argv[1]), shared=sys.argv[2] == "shared")
print("held", flush=True)
time.sleep(60)
"""


def holder(place: Path, how: str = "exclusive") -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(place), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "held\n"
    return process


@pytest.mark.processes
def test_a_second_process_hears_who_holds_it_and_a_killed_one_holds_nothing(tmp_path):
    place = tmp_path / "out"
    process = holder(place)
    for shared in (False, True):
        with pytest.raises(ValueError, match=rf"out is in use by process {process.pid} \(since .*: wait until"):
            Lock(place, shared=shared)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Lock(place):
        pass
    assert list(tmp_path.iterdir()) == [], "the last holder removes the file"


@pytest.mark.processes
def test_several_read_and_none_writes_meanwhile(tmp_path):
    place = tmp_path / "cache"
    place.mkdir()
    process = holder(place, "shared")
    with Lock(place, shared=True), pytest.raises(ValueError, match=rf"process {process.pid}"):
        Lock(place)
    process.kill()
    process.wait()
    with Lock(place):
        pass


def test_within_one_process(tmp_path):
    with Lock(tmp_path / "out"), pytest.raises(ValueError, match="this process itself"):
        Lock(tmp_path / "out")
    lock = Lock(tmp_path / "out", shared=True)
    with pytest.raises(ValueError, match=r"this process itself \(close what reads it"):
        Lock(tmp_path / "out")
    del lock
    gc.collect()
    Lock(tmp_path / "out").release()


@pytest.mark.processes
def test_a_forked_child_neither_holds_nor_releases(tmp_path):
    """A data loader's workers live on when their parent is killed."""
    lock = Lock(tmp_path / "out")
    child = os.fork()
    if child == 0:
        lock.release()
        time.sleep(60)
        os._exit(0)
    time.sleep(0.1)
    with pytest.raises(ValueError, match="in use"):
        Lock(tmp_path / "out")
    lock.release()
    Lock(tmp_path / "out").release()  # though the child is still there
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_nothing_is_locked_where_nothing_can_be_written(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(module.os, "open", refuse)
    with Lock(tmp_path / "cache", shared=True):
        assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_warned_of_once(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(module, "_warned", set())
    with pytest.warns(UserWarning, match="is not locked: its file system knows no locks"):
        Lock(tmp_path / "out").release()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Lock(tmp_path / "out").release()


def test_a_users_file_of_that_name_is_left_alone(tmp_path):
    (tmp_path / ".out.mechvit-lock").write_text("mine")
    with pytest.raises(ValueError, match="is no lock of mechvit: move it away"):
        Lock(tmp_path / "out")
    assert (tmp_path / ".out.mechvit-lock").read_text() == "mine"


@pytest.mark.processes
def test_many_processes_take_turns(tmp_path):
    """Removing the file and locking it anew never lets two in."""
    code = """
import os, sys, time
from pathlib import Path
from mechvit.files import Lock
place, inside = Path(sys.argv[1]), Path(sys.argv[1] + "-inside")
done = 0
while done < 40:
    try:
        with Lock(place):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            inside.unlink()
        done += 1
    except ValueError:
        time.sleep(0.0005)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
