"""What `make dist` says and takes before it builds anything: who it is for, and who the package is of."""

from __future__ import annotations

import os
import sys
import tomllib

import pytest
from tools.release import __main__ as release
from tools.release import deb


def test_who_is_not_root_is_told_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["release", "--out", str(tmp_path / "dist")])
    monkeypatch.setattr(release, "build", lambda *_, **__: pytest.fail("it began"))
    with pytest.raises(SystemExit, match="expected root, got user 1000") as caught:
        release.main()
    assert "sudo make dist" in str(caught.value)
    assert not (tmp_path / "dist").exists()


def test_the_package_is_of_whom_the_project_names():
    (one,) = tomllib.loads((deb.ROOT / "pyproject.toml").read_text())["project"]["maintainers"]
    maintainer = f"{one['name']} <{one['email']}>"
    control = deb._control({}, "1.2.3")["DEBIAN/control"].content.decode()
    assert f"\nMaintainer: {maintainer}\n" in control
    assert "@" not in control.replace(maintainer, "")
    changes = deb._documents("1.2.3", 0)["usr/share/doc/strongroom/changelog"].content.decode()
    assert f"\n -- {maintainer}  Thu, 01 Jan 1970" in changes
