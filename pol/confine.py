"""What a replayed program may take from this machine: processor time and memory within limits, and nothing else.

:func:`confine` runs in the replay's own process, before the program does. It takes away the network (a network
namespace, a filter of system calls), every file but those of one folder for writing (Landlock), other processes,
privileges and core dumps. Reading stays possible: data and libraries are files. Where the kernel refuses one of these
the process runs on, and what could not be taken away is said.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pol.system_calls import filter_system_calls


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one replay may take; the verifier chooses it, never the proof.

    ``memory`` is in bytes, beyond what the imports and the data take; ``seconds`` is the wall time of one segment (the
    first one also builds or restores the state); ``file_size`` is in bytes, for each file the program writes;
    ``open_files`` come on top of those of the data set.
    """

    memory: int = 8 * 2**30
    seconds: float = 3600.0
    file_size: int = 2**30
    open_files: int = 256


def confine(limits: Limits, folder: Path, *, device: str) -> list[str]:
    """Confine this process, for good, to ``limits`` and to writing in ``folder``.

    Call it in a process with one thread. Returns one sentence for everything that this kernel would not take away.
    ``device`` is ``cpu`` or ``cuda``, whose driver needs its device files and maps far more memory than it uses.
    """
    os.setsid()
    notes = []
    if not _limit_resources(limits, device):
        notes.append("the memory of the replay process was watched, not bounded")
    no_namespace = _leave_network()
    _drop_privileges()
    no_landlock = _keep_out_of_files(folder, device)
    no_filter = filter_system_calls()
    if no_namespace and no_filter:
        notes.append(f"the replay process was not cut off from the network: {no_namespace}; {no_filter}")
    if no_filter:
        notes.append(f"the replay process was free to start and to signal other processes: {no_filter}")
    if no_landlock:
        notes.append(f"the replay process was free to write files outside its own folder: {no_landlock}")
    return notes


def memory_of(pid: int) -> int:
    """The bytes of memory that process ``pid`` holds and that no file backs; 0 where nobody can tell."""
    return _status(pid, "RssAnon") + _status(pid, "RssShmem")


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends, however that happens (Linux)."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(1, ctypes.c_ulong(9))  # PR_SET_PDEATHSIG, SIGKILL


def _limit_resources(limits: Limits, device: str) -> bool:
    """Set the kernel's limits; False if the one on memory cannot be."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, limits.file_size)
    _limit(resource.RLIMIT_NOFILE, max(int(path.name) for path in Path("/dev/fd").iterdir()) + limits.open_files)
    if platform.system() != "Linux":
        return False
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out all the same, this process goes first
    if device != "cpu":
        return False
    # Private writable memory: unlike the address space it leaves out mapped data files and what is only reserved.
    _limit(resource.RLIMIT_DATA, _status(os.getpid(), "VmData") + limits.memory)
    return True


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _status(pid: int, name: str) -> int:
    try:
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(row.split()[1]) * 1024 for row in rows if row.startswith(f"{name}:")), 0)


def _leave_network() -> str | None:
    """Move into a network namespace of its own, which has no way out; returns why not."""
    if platform.system() != "Linux":
        return f"no namespaces on {platform.system()}"
    libc, uid, gid = ctypes.CDLL(None, use_errno=True), os.geteuid(), os.getegid()
    new_user, new_network = 0x10000000, 0x40000000
    if libc.unshare(new_user | new_network):
        return f"the kernel refuses namespaces ({os.strerror(ctypes.get_errno())})"
    with suppress(OSError):  # keep the name of the user, whose files are read; nameless it is cut off as well
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return None


def _drop_privileges() -> None:
    """Root's powers, if this is root, or those that a namespace of one's own brings."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).capset(struct.pack("=Ii", 0x20080522, 0), bytes(24))  # version 3, this process, no capability
        ctypes.CDLL(None).prctl(38, *map(ctypes.c_ulong, (1, 0, 0, 0)))  # PR_SET_NO_NEW_PRIVS: nor any by execve


_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same numbers on every architecture
_WRITE_FILE = 1 << 1
_CHANGE_FOLDER = sum(1 << bit for bit in range(4, 13))  # remove and make entries of every kind
_REFER, _TRUNCATE = 1 << 13, 1 << 14


def _keep_out_of_files(folder: Path, device: str) -> str | None:
    """Allow writing in ``folder`` and to device files a program may need, nowhere else; returns why not."""
    if platform.system() != "Linux":
        return f"no Landlock on {platform.system()}"
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        return f"no Landlock in this kernel ({os.strerror(ctypes.get_errno())})"
    one_file = _WRITE_FILE | (_TRUNCATE if version >= 3 else 0)
    everything = one_file | _CHANGE_FOLDER | (_REFER if version >= 2 else 0)
    rules = libc.syscall(_LANDLOCK_CREATE, struct.pack("=Q", everything), 8, 0)
    devices = [Path("/dev/null"), *(Path("/dev").glob("nvidia*") if device != "cpu" else ())]
    for path, access in [(folder, everything), *((name, one_file) for name in devices)]:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        libc.syscall(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", access, handle), 0)
        os.close(handle)
    failed = libc.syscall(_LANDLOCK_RESTRICT, rules, 0)
    os.close(rules)
    return f"the kernel refuses Landlock ({os.strerror(ctypes.get_errno())})" if failed else None
