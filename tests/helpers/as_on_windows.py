"""Runs a program without what Python lacks on Windows; ``python as_on_windows.py PROGRAM ARGUMENTS...``.

No modules, functions and signals of POSIX, and workers that are spawned, which import this file, too.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys

MODULES = ("fcntl", "grp", "pwd", "resource", "termios")
FUNCTIONS = ("fork", "geteuid", "getuid", "killpg", "sched_getaffinity", "sched_setaffinity", "setsid", "sysconf")
SIGNALS = ("SIGALRM", "SIGHUP", "pthread_sigmask", "setitimer", "sigwaitinfo")

for name in MODULES:
    sys.modules[name] = None
for module, names in ((os, FUNCTIONS), (signal, SIGNALS)):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
