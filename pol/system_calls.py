"""A filter of system calls (seccomp): what a replayed program has no use for fails with "not permitted".

Refused are new processes and programs, sockets, signals to other processes and looks into them, and memory that no
limit counts. The filter needs no privilege and cannot be taken off again; threads are not touched. It compares call
numbers, so it exists for the two kinds of processor whose numbers are listed here (arch/x86/entry/syscalls and
include/uapi/asm-generic/unistd.h of Linux).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_REFUSED = {
    "x86_64": {
        "fork": 57, "vfork": 58, "execve": 59, "execveat": 322,
        "socket": 41, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311,
        "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438,
        "memfd_create": 319, "shmget": 29, "unshare": 272, "setns": 308,
    },
    "aarch64": {
        "execve": 221, "execveat": 281,
        "socket": 198, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "tkill": 130, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271,
        "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438,
        "memfd_create": 279, "shmget": 194, "unshare": 97, "setns": 268,
    },
}  # fmt: skip
_JUDGED = {
    "x86_64": {"clone": 56, "clone3": 435, "kill": 62, "tgkill": 234, "prlimit64": 302},
    "aarch64": {"clone": 220, "clone3": 435, "kill": 129, "tgkill": 131, "prlimit64": 261},
}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# classic BPF: load a word, jump if equal / at least / any bit set, return
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_X32 = 0x40000000  # a second numbering of all calls on x86_64
_CLONE_THREAD = 0x00010000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_system_calls() -> str | None:
    """Install the filter in this process, for good; returns why not, where it cannot be.

    The kernel asks of an ordinary user that PR_SET_NO_NEW_PRIVS is on.
    """
    machine = platform.machine()
    if os.name != "posix" or platform.system() != "Linux" or machine not in _REFUSED:
        return f"no filter of system calls for {platform.system()} on {machine}"
    code = _instructions(machine, os.getpid())
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program)):
        return f"the kernel refuses a filter of system calls ({os.strerror(ctypes.get_errno())})"
    return None


def _instructions(machine: str, pid: int) -> bytes:
    refuse = _one(_RETURN, _FAIL | errno.EPERM)
    code = _one(_LOAD, _ARCHITECTURE_AT) + _one(_EQUAL, _ARCHITECTURE[machine], 1, 0) + refuse
    code += _one(_LOAD, _NUMBER_AT) + _one(_AT_LEAST, _X32, 0, 1) + refuse
    for number in _REFUSED[machine].values():
        code += _one(_EQUAL, number, 0, 1) + refuse
    judged = _JUDGED[machine]
    # the C library then falls back on clone, whose flags a filter can see
    code += _one(_EQUAL, judged["clone3"], 0, 1) + _one(_RETURN, _FAIL | errno.ENOSYS)
    code += _only_if(judged["clone"], _ANY_BIT, _CLONE_THREAD)
    code += _only_if(judged["kill"], _EQUAL, pid) + _only_if(judged["tgkill"], _EQUAL, pid)
    code += _only_if(judged["prlimit64"], _EQUAL, 0)  # 0: this process
    return code + _one(_RETURN, _ALLOW)


def _only_if(number: int, test: int, value: int) -> bytes:
    """Call ``number`` passes only if its first argument meets ``test`` with ``value``."""
    judge = _one(_LOAD, _FIRST_ARGUMENT_AT) + _one(test, value, 0, 1)
    return _one(_EQUAL, number, 0, 4) + judge + _one(_RETURN, _ALLOW) + _one(_RETURN, _FAIL | errno.EPERM)


def _one(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
