"""Whose rights a program has, and whether it needs more: nobody in a room can change users or give files away, root neither.

Many images start as root and give that up themselves: an entrypoint ends in gosu, a server's master starts its workers as
somebody else. Examined are the command line, what it starts in turn, and the scripts on the way, as far as their text says
(`shell`). A step blocks where the program is sure to reach it and to end there; any other step is a warning.
Not seen: what programs do that are not listed here.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strongroom.images.oci import printable
from strongroom.images.preflight import command
from strongroom.images.preflight import shell as preflight_shell
from strongroom.images.preflight.findings import Finding, blocks, fine, warns
from strongroom.images.preflight.program import ExaminedImage, find, path_of
from strongroom.images.preflight.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_HOPS = 6
_MAX_CONFIG = 1 << 16
_HEAD = 256
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
_OWNER = re.compile(r"(?!(root|0)?(:(root|0)?)?$)[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_.-]*)?", re.ASCII)
_ASKING = frozenset(["--version", "-V", "-v", "--help", "-h", "-?", "-t"])
# Programs that start another one as somebody else, or with other rights (setpriv first asks to keep its own, whatever its options say).
# The option without which they do not; none: they always do.
_SWITCHES = {
    **dict.fromkeys(
        ("gosu", "su-exec", "su", "runuser", "sudo", "doas", "setuidgid", "s6-setuidgid", "setpriv", "chroot")
    ),
    "chpst": re.compile(r"-[uU].*"),
    "start-stop-daemon": re.compile(r"-c|--chuid(=.*)?"),
}
# Servers that root starts, with what they do then and the account that they usually have.
_SERVERS = {
    re.compile(r"postgres|initdb|pg_ctl"): ("refuses to be run by root", "postgres"),
    re.compile(r"mysqld|mariadbd"): ("refuses to be run by root, or changes its user", "mysql"),
    re.compile(r"elasticsearch|opensearch"): ("refuses to be run by root", ""),
    re.compile(r"memcached"): ("changes its user", ""),
    re.compile(r"nginx"): ("starts its workers as another user", ""),
    re.compile(r"apache2|httpd"): ("starts its workers as another user", "www-data"),
    re.compile(r"php-fpm[0-9.]*"): ("starts its workers as another user", "www-data"),
    re.compile(r"apt|apt-get"): (
        "changes to _apt to fetch packages, for which there is no network either",
        "",
    ),
}
_NGINX_USER = re.compile(r"(?:^|[;\n])[ \t]*user[ \t]+([^ \t;]+)")


@dataclass(frozen=True, kw_only=True)
class _Act:
    """A step that takes rights which nobody has: what is done, by which command, and whose account would do. sure: see `blocks`."""

    where: str
    what: str
    user: str
    sure: bool


def examine(subject: ExaminedImage) -> Iterator[Finding]:
    """The user, and every step of the start that takes another's rights."""
    settings = subject.settings
    acts = {(act.where, act.what): act for act in _acts(subject)}
    for act in acts.values():
        account = act.user or "the one that it would change to"
        root = (
            "root has no capabilities in a room" if not settings.uid else "nobody can change users in a room"
        )
        fix = (
            f"set USER in the image, or `user:` in a compose file, to {account}"
            if not settings.uid
            else "start the program itself: it is run by the image's USER as it is"
        )
        check, may = (blocks, "") if act.sure else (warns, "where the script comes by it, ")
        yield check("user", act.where[:200], f"{may}{act.what}; {root}, so this fails", fix)
    if settings.uid:
        yield fine("user", "USER", f"user {settings.uid}, group {settings.gid}")
    elif not acts:
        yield warns(
            "user",
            "USER",
            "root, but without any capability: no change of users, no mounts, no files of others",
            "set USER in the image to an ordinary user",
        )


def _acts(subject: ExaminedImage) -> Iterator[_Act]:
    settings = subject.settings
    words = (*settings.entrypoint, *settings.command)
    where = "ENTRYPOINT" if settings.entrypoint else "CMD"
    sure = True
    for _ in range(_MAX_HOPS):
        yield from _of_command(subject, words, where, sure=sure)
        inner = command.started(words)
        if inner:
            words = inner
            continue
        script, arguments = _script(subject, words)
        if not script:
            return
        shell = Shell(uid=settings.uid, arguments=arguments, variables=settings.environment)
        where = printable(script)
        steps = preflight_shell.steps(_text(subject, script), shell)
        for step in steps:
            yield from _of_command(subject, step.words, where, sure=sure and step.sure and step.ends)
        passed_on = [
            step
            for step in steps
            if arguments
            and step.words[-len(arguments) :] == arguments
            and path_of(subject, step.words[0]) not in (None, script)
        ]
        if not passed_on:
            return
        words, sure = passed_on[-1].words, sure and passed_on[-1].sure and passed_on[-1].ends


def _of_command(subject: ExaminedImage, words: tuple[str, ...], where: str, *, sure: bool) -> Iterator[_Act]:
    if not words or not words[0]:
        return
    uid = subject.settings.uid
    names = {words[0].rpartition("/")[2], _real_name(subject, words[0])}
    shown = printable(" ".join(word or "..." for word in words)[:100])
    for name in sorted(names & _SWITCHES.keys()):
        option = _SWITCHES[name]
        if option is None or any(option.fullmatch(word) for word in words[1:]):
            yield _Act(
                where=where,
                what=f"`{shown}` changes the user or its rights",
                user=_account(words, name),
                sure=sure,
            )
            return
    if uid:
        return
    if "chown" in names:
        owner = next((word for word in words[1:] if not word.startswith("-")), "")
        if _OWNER.fullmatch(owner):
            yield _Act(
                where=where,
                what=f"`{shown}` gives files to another user",
                user=owner.partition(":")[0],
                sure=sure,
            )
        return
    for pattern, (what, user) in _SERVERS.items():
        name = next(filter(pattern.fullmatch, sorted(names)), "")
        if name and not _ASKING & set(words[1:]) and not _stays_root(subject, name, words):
            yield _Act(where=where, what=f"{name} {what}", user=user, sure=sure)


def _account(words: tuple[str, ...], name: str) -> str:
    """The account of gosu's and su-exec's first argument, and of options of others; empty where it is not plain."""
    named = words[1:2] if name in ("gosu", "su-exec", "setuidgid", "s6-setuidgid") else ()
    named += tuple(word.partition("=")[2] for word in words if word.startswith(("--reuid=", "--chuid=")))
    account = next(iter(named), "").partition(":")[0]
    return account if _USER.fullmatch(account) and account != "root" else ""


def _stays_root(subject: ExaminedImage, name: str, words: tuple[str, ...]) -> bool:
    """Whether a server's settings say that it stays the user that it is."""
    if name in ("mysqld", "mariadbd"):
        return "--user=root" in words
    if name != "nginx":
        return False
    options = dict(itertools.pairwise(words))
    texts = (options.get("-g", ""), _text(subject, options.get("-c", "/etc/nginx/nginx.conf")))
    named = [match[1] for text in texts for match in _NGINX_USER.finditer(text)]
    return named == ["root"]  # nginx stops at a second `user`


def _script(subject: ExaminedImage, words: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The shell script that these words come to, and its arguments; empty where they come to none."""
    file = command.script(words) if words[0].rpartition("/")[2] in command.SHELLS else ""
    if file:
        return _whole(subject, file), words[words.index(file) + 1 :]
    place = path_of(subject, words[0]) or ""
    head = _text(subject, place)[:_HEAD].partition("\n")[0]
    if not head.startswith("#!"):
        return "", ()
    named = [word.rpartition("/")[2] for word in head[2:].split()]
    interpreter = next((word for word in named if word != "env" and not word.startswith("-")), "")
    return (place, words[1:]) if interpreter in command.SHELLS else ("", ())


def _whole(subject: ExaminedImage, name: str) -> str:
    return name if name.startswith("/") else f"{subject.settings.working_directory}/{name}"


def _real_name(subject: ExaminedImage, name: str) -> str:
    """What a link's end is called, by which many programs know what they are to be. Busybox goes by its own name."""
    place = path_of(subject, name)
    if place is None:
        return ""
    return (
        subject.tree.resolve(place.encode("utf-8", "surrogateescape"))
        .rpartition(b"/")[2]
        .decode("utf-8", "replace")
    )


def _text(subject: ExaminedImage, place: str) -> str:
    node = find(subject.tree, place) if place else None
    if node is None or node.open is None:
        return ""
    with node.open() as source:
        return source.read(_MAX_CONFIG).decode("utf-8", "replace")
