"""Run a program that cannot outlive its parent; on request as an unprivileged user.

This file is executed by itself, before the program: ``python -I -S launch.py PARENT SIGNAL
IDENTITY COMMAND...``. It uses the standard library only, and ends in ``execv``, so the process
keeps its id. IDENTITY is one of

- ``same``: stay who we are;
- ``namespace``: root only; enter a user namespace in which we are ``nobody``. PostgreSQL refuses to
  run as root, and in there it does not see a root user, while files keep their owner on the disk;
- ``drop``: root only; become ``nobody`` for real, where the kernel forbids user namespaces.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

NOBODY = 65534
IDENTITIES = ("same", "namespace", "drop")
FAILED = 126  # exit status when the program could not be started

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def command(
    program: list[str], *, death_signal: signal.Signals, identity: str = "same"
) -> list[str]:
    """Return the command line that runs ``program`` tied to the life of the calling thread.

    The kernel sends ``death_signal`` when the *thread* that started the process ends, so start
    servers from a thread that lives as long as they should.
    """
    if identity not in IDENTITIES:
        raise ValueError(f"got identity {identity!r}, expected one of {IDENTITIES}")
    launcher = [interpreter(), "-I", "-S", str(Path(__file__).resolve())]
    return [*launcher, str(os.getpid()), str(int(death_signal)), identity, *program]


def interpreter() -> str:
    """Return the path of the running Python, which children of ours run with too."""
    return sys.executable


def adopt_orphans() -> None:
    """Become the new parent of every descendant whose own parent ends (a "child subreaper")."""
    _check(_libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def die_with_parent(parent: int, death_signal: int) -> None:
    """Ask the kernel for ``death_signal`` when our parent ends; exit if it already has."""
    _check(_libc().prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(FAILED)


def main(arguments: list[str]) -> None:
    """Take on the identity, tie the life to the parent's, and become the program."""
    parent, death_signal, identity, *program = arguments
    try:
        if identity == "namespace":
            _enter_namespace()
        elif identity == "drop":
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        # After the change of identity: changing credentials clears the death signal.
        die_with_parent(int(parent), int(death_signal))
        os.execv(program[0], program)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"cannot run {program[0]} ({identity}): {error}\n")
        sys.exit(FAILED)


def _enter_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    _check(_libc().unshare(_CLONE_NEWUSER))
    process = Path("/proc/self")
    (process / "setgroups").write_text("deny", encoding="ascii")
    (process / "uid_map").write_text(f"{NOBODY} {user} 1", encoding="ascii")
    (process / "gid_map").write_text(f"{NOBODY} {group} 1", encoding="ascii")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(sys.argv[1:])
