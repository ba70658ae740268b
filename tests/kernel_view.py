"""What a program in a room's container may open of the kernel's files, and a script that tries every one of them.

The script is sh's own words alone: it opens each file below /proc, /sys and /dev for reading and for appending, and
writes nothing. Of the program's own processes it looks at itself.
"""

from __future__ import annotations

import re

SCRIPT = """
look() {
  for f in "$1"/*; do
    case "$f" in /proc/[0-9]*|/proc/self/task|/proc/self/fd|/proc/self/fdinfo|/proc/self/map_files) continue;; esac
    if [ -L "$f" ]; then continue; fi
    if [ -d "$f" ]; then look "$f"; continue; fi
    if [ ! -e "$f" ]; then continue; fi
    case "$f" in /dev/*) ;; *) if [ -c "$f" ]; then continue; fi;; esac
    { true < "$f"; } 2>/dev/null && echo "r $f"
    { true >> "$f"; } 2>/dev/null && echo "w $f"
  done
}
look /proc; look /proc/self; look /sys; look /dev
"""

DEVICES = {f"/dev/{name}" for name in ("full", "null", "random", "urandom", "zero")}
# Of the whole kernel. In /proc/sys, what uid 0 of the kernel alone may read is not among them.
READABLE = {
    f"/proc/{name}"
    for name in ("cgroups", "cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "uptime", "version")
}
READABLE_FOLDERS = re.compile(r"/proc/sys/(?:fs|kernel|net|vm)/")
# Of the process itself, whose owner it is.
OF_ITSELF = {
    f"/proc/self/{name}"
    for name in (
        *("autogroup", "clear_refs", "comm", "coredump_filter", "gid_map", "ksm_merging_pages", "latency", "make-it-fail"),
        *("fail-nth", "mem", "oom_adj", "oom_score_adj", "projid_map", "reclaim", "sched", "setgroups", "timens_offsets"),
        *("timerslack_ns", "uid_map", "seccomp_cache", "loginuid"),
    )
}  # fmt: skip
OF_ITSELF_FOLDER = "/proc/self/attr/"


def beyond(log: str) -> list[str]:
    """The lines of the script's output that tell of more than is allowed."""
    lines = log.splitlines()
    assert "r /proc/meminfo" in lines, log[:2000]
    assert "w /dev/null" in lines, log[:2000]
    return [line for line in lines if not _allowed(line)]


def _allowed(line: str) -> bool:
    mode, _, path = line.partition(" ")
    if path in DEVICES:
        return True
    if path.startswith("/proc/self/"):
        return mode == "r" or path in OF_ITSELF or path.startswith(OF_ITSELF_FOLDER)
    return mode == "r" and (path in READABLE or READABLE_FOLDERS.match(path) is not None)
