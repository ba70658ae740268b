"""Completion for fish: https://fishshell.com/docs/current/completions.html."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from strongroom.cli.grammar.tree import Option, Verb

_HEAD = """\
# fish completion for strongroom, written by `strongroom completion fish`

function __strongroom_at --description 'Is this the verb that was typed so far?'
    set -l verb ''
    for word in (commandline -opc)[2..-1]
        if contains -- "$verb $word" $__strongroom_verbs
            set verb "$verb $word"
        end
    end
    test "$verb" = "$argv[1]"
end
"""


def script(verbs: Sequence[Verb]) -> str:
    """What a user sources, or a system puts into its folder of completions."""
    known = " ".join(_quoted(_name(verb.path)) for verb in verbs if verb.path)
    lines = [
        _HEAD,
        f"set -g __strongroom_verbs {known}",
        "complete -c strongroom -e",
        "complete -c strongroom -f",
    ]
    briefs = {verb.path: verb.brief for verb in verbs}
    for verb in verbs:
        at = f"complete -c strongroom -n {_quoted(f'__strongroom_at {_quoted(_name(verb.path))}')}"
        lines += [f"{at} -a {_quoted(name)} -d {_quoted(briefs[*verb.path, name])}" for name in verb.verbs]
        for argument in verb.arguments:
            if argument.value.words:
                lines.append(f"{at} -a {_quoted(' '.join(argument.value.words))}")
            elif argument.value.files:
                lines.append(f"{at} -F")
        lines += [f"{at} {' '.join(_option(option))}" for option in verb.options]
    return "\n".join(lines) + "\n"


def _name(path: tuple[str, ...]) -> str:
    return "".join(f" {word}" for word in path)


def _option(option: Option) -> Iterator[str]:
    for name in option.names:
        yield f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
    yield f"-d {_quoted(' '.join(option.help.split()))}"
    if option.value is None:
        return
    if option.value.words:
        yield f"-x -a {_quoted(' '.join(option.value.words))}"
    else:
        yield "-r -F" if option.value.files else "-x"


def _quoted(text: str) -> str:
    """Within single quotes fish knows two escapes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
