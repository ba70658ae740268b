"""The agent's value classes behave the same with the room's stand-in for `dataclasses` as with the standard module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import strongroom
from strongroom.agent import value_classes
from strongroom.bases import inputs
from strongroom.bases.packages import modules

ROOT = Path(strongroom.__file__).parent
STAND_IN = "from strongroom.agent import value_classes\nsys.modules['dataclasses'] = value_classes\n"
# What happens to an instance of each class, in words: the same words are wanted of both.
REPORT = r"""
import importlib
import re
for name in names:
    importlib.import_module(name)
def tried(act):
    try:
        return re.sub(r"[0-9]+\.[0-9]+", "NUMBER", repr(act()))  # of the clock
    except AttributeError:
        return "AttributeError"  # which the standard module has a subclass of
    except Exception as cause:
        return type(cause).__name__
def told(cls):
    fields = cls.__dataclass_fields__
    given = {name: f"<{name}>" for name, one in fields.items() if one.init}
    made = tried(lambda: cls(**given))
    said = {
        "made": made,
        "fields": [(name, one.init, one.repr, one.compare) for name, one in fields.items()],
        "positional": list(cls.__match_args__),
        "by place": tried(lambda: cls(*given.values())),
        "one too many": tried(lambda: cls(*given.values(), "more")),
        "twice": tried(lambda: cls("first", **given)),
        "unknown": tried(lambda: cls(**given, no_such_field=1)),
        "without": {name: tried(lambda: cls(**{k: v for k, v in given.items() if k != name})) for name in given},
        "same": tried(lambda: cls(**given) == cls(**given)),
        "of another kind": tried(lambda: cls(**given) == given),
        "hash": tried(lambda: hash(cls(**given)) == hash(cls(**given))),
    }
    said["changed"] = {}
    for name in given:
        said["changed"][name] = [
            tried(lambda: cls(**given) == cls(**{**given, name: "other"})),
            tried(lambda: hash(cls(**given)) == hash(cls(**{**given, name: "other"}))),
            tried(lambda: setattr(cls(**given), name, "other")),
            tried(lambda: delattr(cls(**given), name)),
            tried(lambda: sys.modules["dataclasses"].replace(cls(**given), **{name: "other"})),
        ]
    return said
found = {}
for module in list(sys.modules.values()):
    for value in list(vars(module).values()) if module.__name__.startswith("strongroom.") else ():
        if isinstance(value, type) and "__dataclass_fields__" in vars(value):
            found[f"{value.__module__}.{value.__qualname__}"] = told(value)
print(json.dumps(found))
"""


def agent_modules() -> list[str]:
    paths = [ROOT / name for name in inputs.AGENT_MODULES]
    paths += [path for name in inputs.AGENT_PACKAGES for path in (ROOT / name).rglob("*.py")]
    names = [modules.module_name(f"strongroom/{path.relative_to(ROOT)}") for path in sorted(paths)]
    return [name for name in names if name and "__main__" not in name]


def python(code: str) -> str:
    head = f"import json, sys\nnames = {agent_modules()!r}\n"
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_class_of_the_agents_is_the_same_with_the_rooms_stand_in():
    standard, ours = json.loads(python(REPORT)), json.loads(python(STAND_IN + REPORT))
    assert len(standard) > 70
    assert {name for name in {*standard, *ours} if standard.get(name) != ours.get(name)} == set()


def test_the_agents_imports_do_not_bring_the_standard_module_or_what_it_needs():
    said = python(
        STAND_IN
        + "from strongroom.agent import channel, init, kernel, launcher, room\n"
        + "from strongroom.agent.devices import detect\n"
        + "print([name for name in ('inspect', 'dis', 'ast', 'tokenize') if name in sys.modules])\n"
    )
    assert said.strip() == "[]"


def test_process_1_takes_the_stand_in_before_it_imports_anything_that_makes_a_class():
    text = (ROOT / "agent/__main__.py").read_text()
    place = text.index('sys.modules["dataclasses"] = value_classes')
    others = [line for line in text[:place].splitlines() if "import" in line and "strongroom" in line]
    assert others == ["from strongroom.agent import value_classes"]


@pytest.mark.parametrize("annotation", ["ClassVar[int]", "InitVar[int]"])
def test_what_the_stand_in_does_not_know_ends_the_import(annotation):
    with pytest.raises(TypeError, match="not known in the room"):
        value_classes.dataclass(type("Odd", (), {"__annotations__": {"number": annotation}}))
    with pytest.raises(TypeError, match="order"):
        value_classes.dataclass(order=True)
