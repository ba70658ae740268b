"""`strongroom contract new|show|sign|merge|verify|diff|check`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli import options
from strongroom.cli.contract.check import check
from strongroom.cli.contract.shown import (
    ContractFile,
    print_differences,
    print_drafted,
    print_signatures,
)
from strongroom.cli.contract.sign import sign
from strongroom.cli.printable import printable_json, say
from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.model.contracts.contract import Member

MAX_DAYS = 36_500
_FORMS = {"--party": "ROLE=FILE", "--output": "PATH=PARTY[,PARTY]", "--machine": "TEE=ID"}
_SUCH = {
    "--party": "data-owner=alice.party.json",
    "--output": "/out=bob",
    "--machine": "snp=0102",
    "--env": "MODE=fast",
}
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    group = typer.Typer(help="Write, sign and judge contracts.", no_args_is_help=True)
    for verb in (new, show, sign, merge, verify, diff, check):
        group.command(verb.__name__)(verb)
    app.add_typer(group, name="contract")


def new(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Where to write it.")],
    contract_id: Annotated[str, typer.Argument(help="The contract's name.", show_default=False)] = "",
    compose: Annotated[
        Path | None,
        typer.Option(
            help="A Compose file with x-strongroom keys, which says all else: every service becomes a room."
        ),
    ] = None,
    party: Annotated[
        list[str],
        typer.Option(
            metavar="ROLE=FILE",
            help="A party file and its role: data-owner, program-owner, recipient or auditor.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    image: Annotated[Path | None, typer.Option(help="The program's signed manifest.")] = None,
    room: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="What the room is called (main): the name by which `run --room`, receipts and brokers know it.",
        ),
    ] = [],  # noqa: B006
    base: Annotated[list[Path], typer.Option(help="Local rooms: a base folder, or its base.json.")] = [],  # noqa: B006 - typer copies it
    node: Annotated[
        list[Path], typer.Option(help="Local rooms: what `strongroom node show --json` printed.")
    ] = [],  # noqa: B006
    reference: Annotated[
        list[Path], typer.Option(help="Other platforms: what `strongroom measure … --reference` printed.")
    ] = [],  # noqa: B006
    machine: Annotated[list[str], typer.Option(metavar="TEE=ID", help="A machine of another platform.")] = [],  # noqa: B006
    dataset: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]FILE",
            help="A dataset's signed manifest, and the name that the program finds it under (/data/NAME).",
        ),
    ] = [],  # noqa: B006
    output: Annotated[
        list[str],
        typer.Option(
            metavar="PATH=PARTY[,PARTY]", help="What may leave (/out or /out/NAME), and who may open it."
        ),
    ] = [],  # noqa: B006
    max_output: Annotated[int, typer.Option(help="Most bytes that an output may have.", min=1)] = 16 << 20,
    logs: Annotated[
        list[str], typer.Option(metavar="PARTY", help="Who may read the program's log, sealed.")
    ] = [],  # noqa: B006
    exact_sizes: Annotated[
        bool, typer.Option("--exact-sizes", help="Leave outputs and logs unpadded: their sizes show.")
    ] = False,
    exact_exit_status: Annotated[
        bool, typer.Option("--exact-exit-status", help="Receipts show the exit status, not only 0 or 1.")
    ] = False,
    receipt_wait: Annotated[
        int,
        typer.Option(help="Seconds that a room waits for brokers to record its receipt.", min=0, max=86_400),
    ] = 600,
    argument: Annotated[
        list[str], typer.Option(metavar="WORD", help="Argument in place of the image's CMD.")
    ] = [],  # noqa: B006
    env: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUE",
            help="A variable added to the image's own. All who sign read it: no place for passwords.",
        ),
    ] = [],  # noqa: B006
    certificate_name: Annotated[
        list[str], typer.Option(metavar="DNS-NAME", help="DNS name for the room's certificate.")
    ] = [],  # noqa: B006
    runs: Annotated[int, typer.Option(help="How many runs of the room are permitted.")] = 1,
    days: Annotated[int, typer.Option(help="For how many days from now.", min=1, max=MAX_DAYS)] = 30,
    wall_seconds: Annotated[int, typer.Option(help="Longest run.")] = 600,
    memory_mib: Annotated[int, typer.Option(help="Memory of the room.")] = 512,
    threshold: Annotated[int, typer.Option(help="Signatures needed; 0 means every party's.", min=0)] = 0,
    any_machine: Annotated[
        bool, typer.Option("--any-machine", help="Accept every machine of the nodes' and vendors' roots.")
    ] = False,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Accept rooms without TEE hardware.")
    ] = False,
    without_memory_guard: Annotated[
        bool, typer.Option("--without-memory-guard", help="Accept rooms whose guard is off.")
    ] = False,
    replaces: Annotated[Path | None, typer.Option(help="The version that this one replaces.")] = None,
) -> None:
    """Write a contract down, for the parties to sign. Nothing is accepted that is not named here."""
    from strongroom.model.contracts import contract as contract_model
    from strongroom.model.contracts.room_terms import DEFAULT_NAME, Output
    from strongroom.model.identifiers import PartyName
    from strongroom.parties import draft as drafts
    from strongroom.parties import papers

    if compose is not None:
        from strongroom.cli.contract import compose as composing

        composing.new(context, compose, out=out, replaces=replaces)
        return
    image = _required(contract_id, party, image)
    if len(room) > 1:
        raise Misuse(
            f"--room: given {len(room)} times; `contract new` drafts a contract of one room",
            hint="give it once; several rooms are drafted by the library, with a RoomDraft for each (docs/library.md)",
        )
    members = tuple(_member(text) for text in party)
    machines = [_pair(text, "--machine") for text in machine]
    local = (
        (
            drafts.local_platform(
                nodes=[drafts.load_node(path) for path in node],
                bases=base,
                simulated=simulated,
                memory_guard=not without_memory_guard,
                any_machine=any_machine,
            ),
        )
        if base or node
        else ()
    )
    draft = drafts.Draft(
        id=contract_id,
        members=members,
        rooms=(
            drafts.RoomDraft(
                name=room[0] if room else DEFAULT_NAME,
                image=image,
                datasets=tuple(_dataset(text) for text in dataset),
                arguments=tuple(argument) or None,
                environment=dict(_pair(text, "--env") for text in env),
                outputs=tuple(
                    Output(
                        path=path,
                        recipients=tuple(PartyName(name) for name in to.split(",")),
                        max_bytes=max_output,
                    )
                    for path, to in (_pair(text, "--output") for text in output)
                ),
                logs=tuple(logs),
                certificate_names=tuple(certificate_name),
                wall_seconds=wall_seconds,
                memory_mib=memory_mib,
            ),
        ),
        platforms=(
            *local,
            *drafts.hardware_platforms(reference, machines=machines, any_machine=any_machine),
        ),
        disclosure=contract_model.Disclosure(
            output_sizes=contract_model.OutputSizes.EXACT
            if exact_sizes
            else contract_model.OutputSizes.POWER_OF_TWO,
            exit_status=contract_model.ExitStatus.EXACT
            if exact_exit_status
            else contract_model.ExitStatus.ZERO_OR_ONE,
        ),
        receipt_wait=receipt_wait,
        runs=runs,
        days=days,
        threshold=threshold,
        replaces=replaces,
    )
    with options.drafted():
        agreement = drafts.draft_contract(draft, now=datetime.now(UTC))
    papers.save_agreement(agreement, out=out)
    parsed = agreement.contract
    print_drafted(out, parsed)
    if not any(terms.outputs or terms.logs for terms in parsed.rooms):
        print(
            "note: nothing that the program writes leaves the room: --output /out=PARTY and --logs PARTY let it",
            file=sys.stderr,
        )


def show(file: ContractFile, as_json: Json = False) -> None:
    """Show what a contract says, in sentences."""
    from strongroom.cli import sentences
    from strongroom.parties.papers import load_agreement

    agreement = load_agreement(file)
    contract = agreement.contract
    if as_json:
        print(printable_json(contract.raw.decode()))
        return
    for line in sentences.of(contract):
        say(line)
    print_signatures(agreement)


def merge(
    paths: Annotated[
        list[Path], typer.Argument(help="Copies of one contract, each signed by somebody.", metavar="FILE…")
    ],
    out: Annotated[Path, typer.Option(help="Where to write it; may be one of the files.")],
) -> None:
    """Gather the signatures that parties made on copies of one contract, each at the same time."""
    from strongroom.parties import sign as signing

    merged = signing.merge_contracts(paths, out=out)
    for number, keyid in merged.left_out:
        say(f"left out: {paths[number - 1]}: a signature of {keyid} that is no party's, or does not verify")
    print(f"{out}: {merged.agreement.contract.digest}, the signatures of {len(paths)} file(s)")
    print_signatures(merged.agreement)


def verify(file: ContractFile, as_json: Json = False) -> None:
    """Check the signatures. Leaves with 3 unless enough parties have signed."""
    from strongroom.parties import sign as signing
    from strongroom.parties.papers import load_agreement

    agreement = load_agreement(file)
    if as_json:
        print(
            json.dumps(
                {
                    "digest": agreement.contract.digest,
                    "approved": agreement.approved(),
                    "signed": list(agreement.signers()),
                    "missing": list(agreement.missing()),
                }
            )
        )
    else:
        print(f"digest   {agreement.contract.digest}")
        print_signatures(agreement)
    signing.require_approved(agreement, file=file)


def diff(old: ContractFile, new: ContractFile, as_json: Json = False) -> None:
    """Say what changed from one contract to another."""
    from strongroom.model.contracts import drafting
    from strongroom.parties.papers import load_agreement

    first, second = load_agreement(old).contract, load_agreement(new).contract
    if as_json:
        rows = drafting.differences(first.raw, second.raw)
        print(json.dumps([{"place": p, "before": b, "after": a} for p, b, a in rows]))
        return
    print_differences(first, second)


def _required(contract_id: str, party: list[str], image: Path | None) -> Path:
    """The image. Raises `Misuse` for what a contract without a Compose file has to be given."""
    for given, what in (
        (contract_id, "argument 'CONTRACT_ID'"),
        (party, "option '--party'"),
        (image, "option '--image'"),
    ):
        if not given:
            raise Misuse(
                f"contract new: missing {what}",
                hint="`strongroom contract new --help` shows what it takes, with an example; --compose FILE takes all of it from a file",
            )
    return image or Path()


def _member(text: str) -> Member:
    from strongroom.model.contracts import contract as contract_model
    from strongroom.parties.papers import load_party

    role, path = _pair(text, "--party")
    if role not in set(contract_model.Role):
        raise Misuse(f"--party: {role!r} is no role", hint=f"one of {', '.join(contract_model.Role)}")
    return contract_model.Member(party=load_party(Path(path)), role=contract_model.Role(role))


def _dataset(text: str) -> tuple[str, Path]:
    name, _, path = text.rpartition("=")
    return name, Path(path)


def _pair(text: str, option: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not equals or not left or not right:
        form = _FORMS.get(option, "NAME=VALUE")
        raise Misuse(
            f"{option}: expected {form}, got {text[:80]!r}", hint=f"for example {option} {_SUCH[option]}"
        )
    return left, right
