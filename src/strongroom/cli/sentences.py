"""What a contract says, in sentences: everything in it that somebody who signs it agrees to.

One line for each statement, whatever the text within: nobody who drafts a contract can write a line that
looks like another (see `printable`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from strongroom.cli.printable import printable
from strongroom.encoding import fields
from strongroom.model.contracts import credentials
from strongroom.model.contracts import policy as policy_model
from strongroom.model.contracts.certificate_terms import Interface
from strongroom.model.contracts.room_terms import Restart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.model.contracts.certificate_terms import CertificateTerms
    from strongroom.model.contracts.contract import Contract, Member, Platform
    from strongroom.model.contracts.room_terms import Image, RoomTerms


def of(contract: Contract) -> Iterator[str]:
    """The contract's sentences, a line each."""
    for line in _lines(contract):
        yield printable(line)


def _lines(contract: Contract) -> Iterator[str]:
    yield f"contract {contract.id}, version {contract.version}"
    yield f"digest   {contract.digest}"
    if contract.replaces:
        yield f"replaces {contract.replaces}"
    for member in contract.members:
        yield from _member(member)
    for room in contract.rooms:
        yield from _room(room)
    yield from _discloses(contract)
    for platform in contract.platforms:
        yield from _platform(platform)
    limits = contract.limits
    each = " of each room" if len(contract.rooms) > 1 else ""
    yield (
        f"limits   {limits.runs} run(s){each}, "
        f"{fields.format_time(limits.not_before)} to {fields.format_time(limits.not_after)}"
    )
    approvals = contract.approvals
    must = (
        "and every party, since a platform is simulated"
        if contract.simulated
        else "every owner of a disk among them"
    )
    yield f"approval by {approvals.threshold} of {', '.join(approvals.parties)}, {must}"


def exposed(contract: Contract) -> Iterator[str]:
    """What in the contract looks like a credential, which all who read the contract read. No value is repeated."""
    for room in contract.rooms:
        yield from _exposed(room.image)


def _exposed(image: Image) -> Iterator[str]:
    reasons = credentials.exposed(image.environment, image.arguments or ())
    for name, reason in reasons.items():
        yield printable(
            f"{name} looks like a credential ({reason}), and everybody who has this contract reads it: {credentials.FIX}"
        )


def _member(member: Member) -> Iterator[str]:
    party = member.party
    yield f"party    {party.name} is the {member.role.value}" + (
        f", broker {party.broker.url}" if party.broker else ""
    )
    yield f"         signing key {fields.format_data(party.signing_key.raw)}, {party.keyid}"
    yield f"         recipient {party.recipient}"
    if party.broker:
        yield f"         broker's TLS key {party.broker.pin}"
        yield f"         broker's ledger key {fields.format_data(party.broker.ledger_key)}"
        yield f"         broker's authority {party.broker.authority}"


def _room(room: RoomTerms) -> Iterator[str]:
    machine = f"{room.memory_mib} MiB" + (f", {room.processors} processors" if room.processors > 1 else "")
    quiet = "" if room.ports or room.peers or room.egress else ", no network"
    yield f"room     {room.name}: {machine}, {_life(room)}{quiet}"
    yield from _program(room.image)
    yield from _network(room)
    for dataset in room.datasets:
        yield f"data     {dataset.name} of {dataset.owner}, at /data/{dataset.name}: {dataset.manifest_digest}"
    yield from _leaves(room)
    if room.certificate is not None:
        yield from _certificate(room.certificate)


def _certificate(terms: CertificateTerms) -> Iterator[str]:
    names = ", ".join(terms.names)
    yield f"certificate for {names}, {terms.lifetime_seconds} s at most"
    yield f"         key {terms.key.value}, for a TLS {' and '.join(usage.value for usage in terms.usages)}"
    if terms.trust_domain is not None:
        yield f"         named in the SPIFFE trust domain {terms.trust_domain}"
    if Interface.ACME in terms.interfaces:
        yield "         the program may ask for more by ACME, for keys of its own that no evidence is bound to"
    if Interface.WORKLOAD_API in terms.interfaces:
        yield "         handed out by the SPIFFE Workload API too"
    if terms.delivery is None:
        return
    delivery = terms.delivery
    yield f"         in {delivery.folder} as {delivery.format.value}, of {delivery.uid}:{delivery.gid}, mode {delivery.mode.value}"
    if delivery.signal is not None:
        yield f"         then the program is sent SIG{delivery.signal.value}"
    if delivery.command is not None:
        yield f"         then the room runs {json.dumps(delivery.command)}"
    if delivery.check is not None:
        yield f"         then the room looks for it at the program's port {delivery.check}"


def _life(room: RoomTerms) -> str:
    if room.service is None:
        return f"at most {room.wall_seconds} s"
    restarts = {
        Restart.NEVER: "ends with its program",
        Restart.ON_FAILURE: "starts its program again when that fails",
        Restart.ALWAYS: "starts its program again whenever it ends",
    }
    return (
        f"a service, attests again every {room.service.renewal_seconds} s, {restarts[room.service.restart]}"
    )


def _network(room: RoomTerms) -> Iterator[str]:
    for port in room.ports:
        how = "tunnels, and by plain streams" if port.open else "tunnels that prove the room alone"
        yield f"port     {port.name}: {port.number}, reached through {how}"
    for peer in room.peers:
        wait = "; starts once it is there" if peer.wait else ""
        yield f"peer     port {peer.port} of the room {peer.room}, as host {peer.room}{wait}"
    for host in room.egress:
        tls = (
            f"in TLS of the agent, authority {host.authority_digest}"
            if host.authority
            else "as the program sends it"
        )
        yield f"egress   {host.host}:{host.port}, {tls}"


def _program(image: Image) -> Iterator[str]:
    yield f"program  of {image.owner}: {image.manifest_digest}"
    if image.arguments is not None:
        yield f"         with arguments {json.dumps(image.arguments)}"
    for name, value in image.environment.items():
        yield f"         with {name}={value}"
    for line in _exposed(image):
        yield f"note     {line}"


def _leaves(room: RoomTerms) -> Iterator[str]:
    for output in room.outputs:
        to = ", ".join(output.recipients)
        yield f"output   {output.path} sealed to {to}, at most {output.max_bytes} bytes"
    if not room.outputs:
        yield "output   none: what the program writes to /out stays in the room"
    if room.logs:
        yield f"log      sealed to {', '.join(room.logs.recipients)}, at most {room.logs.max_bytes} bytes"
    else:
        yield "log      nobody reads it"


def _discloses(contract: Contract) -> Iterator[str]:
    yield f"shown    sizes of sealed files: {contract.disclosure.output_sizes.value}"
    yield f"         exit status: {contract.disclosure.exit_status.value}"
    for room in contract.rooms:
        of = f"of {room.name}: " if len(contract.rooms) > 1 else ""
        yield (
            f"receipt  {of}recorded by {', '.join(contract.key_owners(room.name)) or 'nobody'} before anything leaves; "
            f"after {contract.receipts.wait_seconds} s without it nothing does"
        )


def _platform(platform: Platform) -> Iterator[str]:
    kind = "SIMULATED, no hardware isolation" if platform.simulated else "hardware only"
    guard = "memory guard demanded" if platform.memory_guard else "memory guard may be off"
    yield f"platform {platform.tee}: {kind}; {guard}; {len(platform.references)} accepted base(s)"
    for number, reference in enumerate(platform.references, 1):
        for name, value in reference.items():
            yield f"         base {number}: {name} {value}"
    for machine in platform.machines:
        yield f"         machine {'ANY that the roots vouch for' if machine == policy_model.ANY_MACHINE else machine}"
    for root in platform.roots:
        yield f"         root {root}"
    if platform.policy is not None:
        # In the words of docs/policy.md: each rule and allowance as it is signed.
        for key, said in platform.policy.to_json().items():
            yield from _devices(said) if key == "devices" else _rule("policy", key, said)


def _rule(at: str, key: str, said: object) -> Iterator[str]:
    if isinstance(said, dict):
        for name, inner in said.items():
            yield f"         {at} {key}: {name} {json.dumps(inner)}"
        if not said:
            yield f"         {at} {key}: none"
    else:
        yield f"         {at} {key}: {json.dumps(said)}"


def _devices(said: Any) -> Iterator[str]:
    references = said.get("references", [])
    yield f"         devices: {said['count']} attached, each as one of {len(references)} reference(s)"
    for number, reference in enumerate(references, 1):
        for name, value in reference.items():
            yield f"         device reference {number}: {name} {value}"
    if not references and not said.get("registers"):
        yield "         device reference: none, so that no device is accepted"
    for key, value in said.items():
        if key not in ("count", "references"):
            yield from _rule("device", key, value)
