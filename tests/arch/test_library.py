"""The evidence library stands alone: `cryptography` is all that it may load from outside."""

from __future__ import annotations

import json
import subprocess
import sys

ALLOWED = {
    "strongroom",
    "cryptography",
    "cffi",
    "_cffi_backend",
    "_openssl",
}  # the last three are cryptography's
PROGRAM = """
import json, sys
before = set(sys.modules)
import strongroom.evidence.verify, strongroom.appraisal.judge
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(names - set(sys.stdlib_module_names))))
"""


def test_judging_evidence_loads_cryptography_alone():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = {name for name in json.loads(done.stdout) if not name.startswith("__editable__")}
    assert "strongroom" in loaded
    assert loaded <= ALLOWED, loaded - ALLOWED
