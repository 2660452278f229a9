"""Starts a daemon as a service manager would, with the real protocol: ``python activator.py SOCKET NOTIFY COMMAND…``.

The socket is made and listened on here, and passed as descriptor 3 to the command, which becomes this process; NOTIFY is
where it speaks to, ``@name`` for an abstract socket. Standard library only.
"""

import os
import socket
import sys

FIRST_FD = 3


def main() -> None:
    path, notify, *command = sys.argv[1:]
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    os.chmod(path, 0o666)
    listening.listen(128)
    if listening.fileno() == FIRST_FD:
        os.set_inheritable(FIRST_FD, True)
    else:
        os.dup2(listening.fileno(), FIRST_FD, inheritable=True)
    passed = {
        "LISTEN_FDS": "1",
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDNAMES": "bakehouse.socket",
        "NOTIFY_SOCKET": notify,
    }
    os.execvpe(command[0], command, {**os.environ, **passed})


if __name__ == "__main__":
    main()
