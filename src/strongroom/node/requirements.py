"""What each verb needs of a machine beside the library itself: programs, Python packages, rights, devices.

Nothing is started and nothing is asked of a network. `doctor` looks at what rooms need; here are the other verbs, and one row
for each kind of room.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from strongroom import extras
from strongroom.errors import Unavailable
from strongroom.node import doctor
from strongroom.node.doctor import Need

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON = (3, 11)  # a base's; its compiled modules are for one version
_DEBIAN = "bases are built on Debian 12"


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """The machine looked at, so that tests have others. which: where PATH has a program. imports: is a package there?"""

    host: doctor.Host = field(default_factory=doctor.Host)
    which: Callable[[str], str | None] = shutil.which
    imports: Callable[[str], bool] = field(default=lambda name: importlib.util.find_spec(name) is not None)
    root: Callable[[], bool] = field(default=lambda: os.geteuid() == 0)
    python: tuple[int, int] = sys.version_info[:2]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Verbs that have the same needs, as they are typed, and those needs."""

    verbs: tuple[str, ...]
    needs: tuple[Need, ...] = ()

    @property
    def able(self) -> bool:
        """Whether every need that is not optional was found."""
        return all(need.ok or need.optional for need in self.needs)

    @property
    def lacks(self) -> tuple[Need, ...]:
        """The needs that are not met, optional ones among them."""
        return tuple(need for need in self.needs if not need.ok)

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "verbs": list(self.verbs),
            "able": self.able,
            "needs": [need.to_json() for need in self.needs],
        }


def examine(machine: MachineFacts) -> tuple[Row, ...]:
    """Every verb, those that need nothing first."""

    def program(name: str, fix: str, *, optional: bool = False) -> Need:
        path = machine.which(name)
        return Need(name=name, ok=path is not None, found=path or "not on PATH", fix=fix, optional=optional)

    def system(name: str, fix: str) -> Need:
        """Where the base's builder looks, whatever PATH says."""
        path = machine.host.program(name)
        return Need(name=name, ok=bool(path), found=path or "not installed", fix=fix)

    def package(name: str, *, optional: bool = False) -> Need:
        there = machine.imports(name)
        return Need(
            name=f"Python package {name}",
            ok=there,
            found="installed" if there else "not installed",
            fix=extras.install(extras.EXTRA[name]),
            optional=optional,
        )

    zstd = program(
        "zstd", "apt-get install zstd (Debian, Ubuntu): for images compressed by it", optional=True
    )
    compose = package("yaml", optional=True)
    age = package("pyrage")
    abilities = doctor.examine(machine.host)
    rooms = tuple(
        Row(verbs=(f"run --backend {ability.backend}",), needs=(age, *ability.needs)) for ability in abilities
    )
    local = next(ability.needs for ability in abilities if ability.backend == "tpm")
    base = (
        system("apt-get", _DEBIAN),
        system("apt-cache", _DEBIAN),
        system("dpkg-deb", "apt-get install dpkg (Debian, Ubuntu)"),
        _python(machine),
        age,
        package("cyclonedx"),
    )
    broker = (
        age,
        package("sqlalchemy"),
        package("httptools"),
        package("uvloop"),
        package("orjson", optional=True),
    )
    swtpm = program("swtpm", "apt-get install swtpm (Debian, Ubuntu)")
    file = package("yaml")
    return (
        Row(
            verbs=(
                "endorsements",
                "inspect",
                "measure",
                "proof",
                "runs",
                "verify",
                "completion",
                "manual",
                "doctor",
            )
        ),
        Row(verbs=("base show", "base measure", "base clean", "node show", "node doctor")),
        # What signs opens an identity; the rest of these verbs reads and judges.
        Row(
            verbs=("evidence", "contract", "ledger", "reference", "result"),
            needs=(package("pyrage", optional=True),),
        ),
        Row(verbs=("identity", "seal", "open"), needs=(age,)),
        Row(verbs=("convert",), needs=(age, zstd, compose)),
        Row(verbs=("preflight",), needs=(zstd, compose)),
        Row(verbs=("connect",), needs=(package("OpenSSL"),)),
        Row(verbs=("image verify",), needs=(package("sigstore", optional=True),)),
        Row(verbs=("try",), needs=(_rights(machine), *_dry_run(machine.host), zstd, compose)),
        Row(
            verbs=("base build", "base verify"),
            needs=base,
        ),
        Row(verbs=("broker",), needs=broker),
        Row(verbs=("node init",), needs=(swtpm,)),
        Row(verbs=("init", "ps", "logs", "restart", "down"), needs=(file,)),
        Row(verbs=("pause", "resume"), needs=tuple(dict.fromkeys((file, *broker)))),
        Row(verbs=("join",), needs=(file, age, zstd, replace(swtpm, optional=True))),
        # All of an owner's, a broker's and an operator's: each need once.
        Row(verbs=("up",), needs=tuple(dict.fromkeys((file, *base, *broker, swtpm, *local, zstd)))),
        *rooms,
        Row(
            verbs=("scrape",),
            needs=(
                Need(
                    name="root",
                    ok=machine.root(),
                    found="root" if machine.root() else "another user",
                    fix="sudo, to read the memory of others' processes",
                    optional=True,
                ),
                program(
                    "gcore", "apt-get install gdb (Debian, Ubuntu): a second way of reading", optional=True
                ),
            ),
        ),
    )


def rows_of(rows: tuple[Row, ...], words: tuple[str, ...]) -> tuple[Row, ...]:
    """The rows of the verb that was typed, of the group it belongs to, or of all verbs below it. Empty where there is none."""
    typed = " ".join(words)

    def within(verb: str) -> bool:
        return f"{typed} ".startswith(f"{verb} ") or f"{verb} ".startswith(f"{typed} ")

    return tuple(row for row in rows if any(within(verb) for verb in row.verbs)) if typed else rows


def require(rows: tuple[Row, ...], words: tuple[str, ...]) -> None:
    """Raise `Unavailable` where this machine can do none of `rows`, those of the verb that was typed."""
    if any(row.able for row in rows):
        return
    first = next(need for row in rows for need in row.lacks if not need.optional)
    raise Unavailable(
        f"this machine cannot do {' '.join(words)}: {first.name}: {first.found}",
        code="verb-unable",
        hint=first.fix,
    )


def _python(machine: MachineFacts) -> Need:
    wanted = ".".join(map(str, PYTHON))
    return Need(
        name=f"Python {wanted}",
        ok=machine.python == PYTHON,
        found=".".join(map(str, machine.python)),
        fix="make the virtual environment with Debian 12's /usr/bin/python3",
    )


def _rights(machine: MachineFacts) -> Need:
    there = machine.root()
    return Need(name="root", ok=there, found="root" if there else "another user", fix="run it with sudo")


def _dry_run(host: doctor.Host) -> tuple[Need, ...]:
    loop = host.has("dev/loop-control")
    allowed = host.read("proc/sys/user/max_user_namespaces")
    return (
        Need(
            name="/dev/loop-control",
            ok=loop,
            found="there" if loop else "not there",
            fix="modprobe loop; in a container, give it /dev/loop-control and the devices",
        ),
        Need(
            name="user namespaces",
            ok=allowed != "0",
            found=f"at most {allowed}" if allowed else "no limit to be seen",
            fix="sysctl user.max_user_namespaces=65536",
        ),
    )
