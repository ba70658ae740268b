"""STRONGROOM_LOG: what a host's processes do is told, in lines, and no secret is in them; rooms have none of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time

import pytest

from strongroom import host_log
from strongroom.errors import Misuse, Unavailable
from strongroom.fetch.brokers import BrokerReader
from strongroom.host_log import LogLevel
from strongroom.node import children
from strongroom.wiring import host_log as setting
from tests import samples
from tests.arch import sources


@pytest.fixture
def told():
    out = []
    host_log.tell_to(lambda level, event, values: out.append((level, event, values)), least=LogLevel.DEBUG)
    yield out
    host_log.tell_to(None)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(environment, stream=None):
    stream = io.StringIO() if stream is None else stream
    setting.set_up({"STRONGROOM_LOG": environment}, stream)
    try:
        for level in (host_log.debug, host_log.info, host_log.warning):
            level("tried", number=1, path="/x")
    finally:
        host_log.tell_to(None)
    return stream.getvalue().splitlines()


def test_nothing_is_told_unless_somebody_asked(capsys):
    assert not host_log.wanted(LogLevel.WARNING)
    host_log.warning("tried", number=1)
    with host_log.timed(LogLevel.WARNING, "tried"):
        pass
    assert lines("") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("asked", "count"), [("debug", 3), ("info", 2), ("warning", 1), ("DEBUG", 3)])
def test_a_level_has_those_above_it(asked, count):
    assert [json.loads(line)["event"] for line in lines(asked)] == ["tried"] * count


def test_a_terminal_gets_text_and_all_else_json_unless_told_otherwise():
    (line,) = lines("warning")
    parsed = json.loads(line)
    assert (parsed["level"], parsed["number"], parsed["process"]) == ("warning", 1, os.getpid())
    assert parsed["timestamp"].endswith("Z")
    assert [json.loads(line)["event"] for line in lines("warning,json", Terminal())] == ["tried"]
    for shown in (lines("warning", Terminal()), lines("warning,text")):
        assert "tried" in shown[0]
        with pytest.raises(ValueError, match="line 1"):
            json.loads(shown[0])


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_value_may_be_called_as_the_lines_own_are(form):
    stream = io.StringIO()
    setting.set_up({"STRONGROOM_LOG": f"debug,{form}"}, stream)
    names = sorted(setting.OURS)
    try:
        host_log.warning("tried", **{name: f"its {name}" for name in names})
        with host_log.timed(LogLevel.INFO, "timed", event=1, level=2):
            pass
    finally:
        host_log.tell_to(None)
    first = stream.getvalue().splitlines()[0]
    assert all(f"its {name}" in first for name in names)
    assert str(os.getpid()) in first
    if form == "json":
        parsed = json.loads(first)
        assert (parsed["event"], parsed["level"], parsed["process"]) == ("tried", "warning", os.getpid())
        assert parsed["process_"] == "its process"


@pytest.mark.parametrize("asked", ["loud", "debug,xml", "debug,json,text", ",", "10"])
def test_a_setting_that_is_none_is_refused(asked):
    with pytest.raises(Misuse) as caught:
        setting.set_up({"STRONGROOM_LOG": asked}, io.StringIO())
    assert caught.value.code == "bad-log"
    assert not host_log.wanted(LogLevel.WARNING)


def test_secrets_do_not_show(told):
    hidden = "swordfish"
    values = dict.fromkeys(
        (
            *(
                "passphrase",
                "password",
                "new_passphrase",
                "registry_token",
                "authorization",
                "key",
                "disk_key",
            ),
            *("credentials", "private", "secret", "Cookie", "vault", "nonce", "environment"),
        ),
        hidden,
    )
    host_log.info("tried", **values, body=hidden.encode(), parts=[hidden.encode()])
    host_log.info("tried", url=f"https://alice:{hidden}@registry.example/v2/x?signature={hidden}#{hidden}")
    host_log.info("tried", why=f"see https://h/p?token={hidden} there")
    assert hidden not in repr(told)
    assert told[1][2] == {"url": "https://registry.example/v2/x?…"}
    assert told[2][2] == {"why": "see https://h/p?… there"}
    assert told[0][2]["body"] == "[9 bytes]"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://alice:swordfish@db.example/flights", "postgresql://db.example/flights"),
        ("redis://:swordfish@10.0.0.1:6379/0", "redis://10.0.0.1:6379/0"),
        ("HTTPS://alice:swordfish@[2001:db8::1]:443/x", "HTTPS://[2001:db8::1]:443/x"),
        ("jdbc:postgresql://alice:swordfish@h:5432/x?user=swordfish", "jdbc:postgresql://h:5432/x?…"),
        ("1git+ssh://swordfish@h/x#swordfish", "1git+ssh://h/x#…"),
        ("a://h/x,b://alice:swordfish@h", "a://h/x,b://h"),
        ("a://h/x?to=b://h/y&token=swordfish", "a://h/x?…"),
        # Passwords that should have been written with %2F, %3F and %40.
        ("postgresql://alice:sword/fish@h/x", "postgresql://[left out]"),
        ("postgresql://alice:sword?fish@h/x", "postgresql://[left out]?…"),
        ("postgresql://alice:swordfish@1/swordfish@h/x", "postgresql://h/x"),
        (
            "at docker://registry.example/team/query@sha256:ab",
            "at docker://registry.example/team/query@sha256:ab",
        ),
        ("no https://127.0.0.1:8443: refused", "no https://127.0.0.1:8443: refused"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
    ],
)
def test_of_a_url_of_whatever_scheme_place_and_path_show(told, url, shown):
    host_log.info("tried", url=url, line=["--at", url])
    assert told[0][2] == {"url": shown, "line": ["--at", shown]}


@pytest.mark.parametrize("before", range(host_log.MAX_TEXT - 60, host_log.MAX_TEXT + 2))
def test_a_url_that_the_cut_goes_through_shows_nobody(told, before):
    host_log.info("tried", why="x" * before + "https://alice:swordfish@registry.example/v2/")
    (shown,) = told[0][2].values()
    assert "sword" not in shown
    assert shown.endswith("…") or len(shown) < host_log.MAX_TEXT


@pytest.mark.parametrize("text", ["://" * 30_000, "a://" + "." * 90_000 + "a:b", "@" * 90_000, "x" * 90_000])
def test_a_strangers_text_costs_no_more_than_its_length(told, text):
    begun = time.process_time()
    host_log.info("tried", why=text)
    assert time.process_time() - begun < 1.0
    assert len(told[0][2]["why"]) <= host_log.MAX_TEXT + 1


def test_what_strangers_write_is_one_line_and_has_an_end(told):
    host_log.info("tried", path="/\x1b[2J\nlevel=info event=forged", long="x" * 100_000)
    (_, _, values) = told[0]
    assert values["path"] == "/\\x1b[2J\\nlevel=info event=forged"
    assert len(values["long"]) <= host_log.MAX_TEXT + 1


def test_a_failure_is_told_by_its_code_and_raised(told):
    def fail():
        with host_log.timed(LogLevel.DEBUG, "tried", number=1) as more:
            more["second"] = 2
            raise Unavailable("gone", code="vendor-busy")

    with pytest.raises(Unavailable, match="gone"):
        fail()
    (_, event, values) = told[0]
    assert (event, values["number"], values["second"], values["failed"]) == ("tried", 1, 2, "vendor-busy")
    assert values["milliseconds"] >= 0


def test_whoever_does_not_read_stops_no_work():
    def full(_level, _event, _values):
        raise OSError(28, "No space left on device")

    host_log.tell_to(full, least=LogLevel.DEBUG)
    host_log.warning("tried")
    host_log.tell_to(None)


def test_brokers_that_are_asked_and_programs_that_are_started_are_told(told):
    address = samples.a_contract().members[0].party.broker
    with pytest.raises(Unavailable) as caught:
        BrokerReader(address=type(address)(**{**vars(address), "url": "https://127.0.0.1:1"})).checkpoint()
    assert caught.value.code == "broker-unreachable"
    (_, event, values) = told[-1]
    assert (event, values["failed"]) == ("broker asked", "broker-unreachable")
    assert values["url"].startswith("https://127.0.0.1:1/v1/")
    child = children.start(["setpriv", "--version"], descriptors=(), guarded=False)
    assert child.wait(60.0) == 0
    child.stop()
    events = {event: values for _, event, values in told}
    assert events["program started"]["line"][1:] == ["--version"]
    assert events["program ended"]["code"] == 0


def test_a_verb_is_told_without_what_was_typed_or_given(tmp_path):
    environment = {**os.environ, "STRONGROOM_LOG": "debug", "STRONGROOM_PASSPHRASE": "swordfish"}
    code = "from strongroom.cli import entry; entry.main()"
    program = [sys.executable, "-c", code, "identity", "new", "alice"]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    (verb,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (verb["event"], verb["verb"], verb["exit"], "failed" in verb) == ("verb", "identity", 0, False)
    assert "swordfish" not in done.stderr + done.stdout
    bad = {**environment, "STRONGROOM_LOG": "loud"}
    done = subprocess.run(program, cwd=tmp_path, env=bad, capture_output=True, text=True, check=False)
    assert (done.returncode, "[bad-log]" in done.stderr) == (2, True)


def test_rooms_and_judgement_have_none_of_it():
    """Whatever the agent can reach, by imports in functions too, is in the measured base."""
    imports = {source.module: sources.imports(source.tree) for source in sources.product()}
    reached, left = set(), {module for module in imports if module.startswith("strongroom.agent")}
    while left:
        module = left.pop()
        reached.add(module)
        left |= (imports[module] & imports.keys()) - reached
    assert "strongroom.encoding.canonical" in reached
    used = {name for module in reached for name in imports[module]}
    assert not used & {"strongroom.host_log", "structlog", "logging", "strongroom.wiring.host_log"}
    judging = {
        "evidence",
        "appraisal",
        "model",
        "encoding",
        "crypto",
        "ledger",
        "authority",
        "seal",
        "images",
    }
    telling = {one.package for one in sources.product() if "strongroom.host_log" in sources.imports(one.tree)}
    assert not telling & judging
    assert telling >= {"cli", "fetch", "node", "wiring"}
