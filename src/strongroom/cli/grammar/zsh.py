"""Completion for zsh: zshcompsys(1)."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.cli.grammar.tree import Value, Verb

_SCRIPT = """\
#compdef strongroom
# zsh completion for strongroom, written by `strongroom completion zsh`

_strongroom() {
    local verb='' word valued='' value
    local -a verbs options arguments
    for word in "${(@)words[2,CURRENT-1]}"; do
        case "$verb $word" in
@@VERBS@@) verb+=" $word" ;;
        esac
    done
    case "$verb" in
@@TABLE@@
    esac
    value=''
    if [[ $words[CURRENT] == --*=* ]]; then
        value=${words[CURRENT]%%=*}
        compset -P 1 '*='
    elif [[ CURRENT -gt 2 && " $valued " == *" $words[CURRENT-1] "* ]]; then
        value=$words[CURRENT-1]
    fi
    if [[ -n $value ]]; then
        case "$verb $value" in
@@VALUES@@
        esac
        return
    fi
    if [[ $words[CURRENT] == -* ]]; then
        _describe option options
        return
    fi
    (( $#verbs )) && _describe verb verbs
    (( $#arguments )) && compadd -a arguments
    @@FILES@@
}

if [[ $funcstack[1] == _strongroom ]]; then _strongroom "$@"; else compdef _strongroom strongroom; fi
"""


def script(verbs: Sequence[Verb]) -> str:
    """What a user puts into a folder of `fpath` as `_strongroom`, or evaluates."""
    below = [f'            "{_name(verb.path[:-1])} {verb.path[-1]}"' for verb in verbs if verb.path]
    takes_files = "|".join(
        shlex.quote(_name(verb.path))
        for verb in verbs
        if any(argument.value.files for argument in verb.arguments)
    )
    return (
        _SCRIPT.replace("@@VERBS@@", " | \\\n".join(below))
        .replace("@@TABLE@@", "\n".join(_row(verb, verbs) for verb in verbs))
        .replace("@@VALUES@@", "\n".join(line for verb in verbs for line in _values(verb)))
        .replace("@@FILES@@", f'case "$verb" in {takes_files}) _files ;; esac' if takes_files else ":")
    )


def _name(path: tuple[str, ...]) -> str:
    return "".join(f" {word}" for word in path)


def _row(verb: Verb, verbs: Sequence[Verb]) -> str:
    briefs = {child.path[-1]: child.brief for child in verbs if child.path and child.path[:-1] == verb.path}
    below = [f"{name}:{briefs[name]}" for name in verb.verbs]
    options = [f"{name}:{option.help}" for option in verb.options for name in option.names]
    words = [word for argument in verb.arguments for word in argument.value.words]
    valued = " ".join(name for option in verb.options if option.value is not None for name in option.names)
    lists = " ".join(
        f"{name}=({' '.join(shlex.quote(' '.join(item.split())) for item in items)})"
        for name, items in (("verbs", below), ("options", options), ("arguments", words))
    )
    return f"        {shlex.quote(_name(verb.path))}) {lists} valued={shlex.quote(valued)} ;;"


def _values(verb: Verb) -> list[str]:
    out = []
    for option in verb.options:
        if option.value is not None:
            cases = "|".join(shlex.quote(f"{_name(verb.path)} {name}") for name in option.names)
            out.append(f"            {cases}) {_completed(option.value)} ;;")
    return out


def _completed(value: Value) -> str:
    if value.words:
        return f"compadd {' '.join(shlex.quote(word) for word in value.words)}"
    if value.files:
        return "compset -P 1 '*='; _files" if "=" in value.shown else "_files"
    return f"_message {shlex.quote(value.shown)}"
