"""Runs a program under the guard."""

from __future__ import annotations

import os
import subprocess

from strongroom.node.guard import launch


def run(argv, **options):
    """(exit code, standard output) of a guarded program."""
    out, theirs = os.pipe()
    try:
        guarded = launch.spawn(argv, stdin=subprocess.DEVNULL, stdout=theirs, **options)
    finally:
        os.close(theirs)
    try:
        data = b""
        while more := os.read(out, 65536):
            data += more
    finally:
        os.close(out)
    code = guarded.wait(60)
    assert guarded.failure == ""
    return code, data
