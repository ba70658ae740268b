"""Completion for bash: https://www.gnu.org/software/bash/manual/html_node/Programmable-Completion.html."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strongroom.cli.grammar.tree import Verb

_SCRIPT = """\
# bash completion for strongroom, written by `strongroom completion bash`

_strongroom() {
    local verb='' option='' value word glued='' verbs options valued arguments i
    local -a words=()
    # bash ends words at = and :, which belong to ours.
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#words[@]} -gt 0 && ( $glued || $word == [=:]* ) ]]; then words[-1]+=$word; else words+=("$word"); fi
        glued=''
        if [[ $word == *[=:] ]]; then glued=yes; fi
    done
    for word in "${words[@]:0:${#words[@]}-1}"; do
        case "$verb $word" in
@@VERBS@@) verb+=" $word" ;;
        esac
    done
    case "$verb" in
@@TABLE@@
    esac
    value=${words[-1]}
    if [[ $value == --*=* ]]; then
        option=${value%%=*} value=${value#*=}
    elif [[ ${#words[@]} -gt 1 && " $valued " == *" ${words[-2]} "* ]]; then
        option=${words[-2]}
    fi
    if [[ $option ]]; then
        case "$verb $option" in
@@VALUES@@
            *) arguments='' ;;
        esac
        verbs='' options=''
    elif [[ $value == -* ]]; then
        verbs='' arguments=''
    else
        options=''
    fi
    COMPREPLY=()
    if [[ $arguments == FILES ]]; then
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "${value##*[=:]}")
        arguments=''
    fi
    mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$verbs $options $arguments" -- "$value")
}

complete -F _strongroom strongroom
"""


def script(verbs: Sequence[Verb]) -> str:
    """What a user sources, or a system puts into its folder of completions."""
    below = [f'            "{_name(verb.path[:-1])} {verb.path[-1]}"' for verb in verbs if verb.path]
    return (
        _SCRIPT.replace("@@VERBS@@", " | \\\n".join(below))
        .replace("@@TABLE@@", "\n".join(_row(verb) for verb in verbs))
        .replace("@@VALUES@@", "\n".join(line for verb in verbs for line in _values(verb)))
    )


def _name(path: tuple[str, ...]) -> str:
    return "".join(f" {word}" for word in path)


def _row(verb: Verb) -> str:
    valued = [name for option in verb.options if option.value is not None for name in option.names]
    names = [name for option in verb.options for name in option.names]
    words = [word for argument in verb.arguments for word in argument.value.words]
    arguments = "FILES" if any(argument.value.files for argument in verb.arguments) else " ".join(words)
    arrays = {"verbs": verb.verbs, "options": names, "valued": valued}
    lists = " ".join(f"{name}={shlex.quote(' '.join(value))}" for name, value in arrays.items())
    return f"        {shlex.quote(_name(verb.path))}) {lists} arguments={shlex.quote(arguments)} ;;"


def _values(verb: Verb) -> list[str]:
    out = []
    for option in verb.options:
        if option.value is not None and (option.value.files or option.value.words):
            cases = "|".join(shlex.quote(f"{_name(verb.path)} {name}") for name in option.names)
            value = "FILES" if option.value.files else " ".join(option.value.words)
            out.append(f"            {cases}) arguments={shlex.quote(value)} ;;")
    return out
