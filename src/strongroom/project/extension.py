"""What Compose cannot say: the keys of `x-strongroom`, beside `services` (`PROJECT`) and in a service (`SERVICE`).

Both the parser and the schema for editors come of these tables. Bounds are those of contracts, which are drafted of it
and parsed again: what passes here and holds in no contract is refused there.
"""

from __future__ import annotations

from strongroom.encoding import fields
from strongroom.model.contracts.certificate_terms import Format, Interface, KeyKind, Mode, Signal, Usage
from strongroom.model.contracts.contract import Role
from strongroom.model.contracts.room_terms import MAX_DATASETS, MAX_PARTIES, OUTPUT_LIKE, OUTPUT_PATH
from strongroom.model.manifest import MAX_USER
from strongroom.project.shapes import Choice, Flag, Key, KeyedObject, ListOf, MapOf, Number, Text

EXTENSION = "x-strongroom"
OUTPUT_BYTES = 16 << 20  # of an output that says nothing
RENEWAL_SECONDS = 3600
WALL_SECONDS = 600

_NAME = Text(pattern=fields.NAME.pattern, like=fields.NAMES, most=64)
# No escapes, no control characters; relative paths begin beside the file.
_PATH = Text(pattern=r"[^\x00-\x1f\x7f]{1,400}", like="a path, from where this file lies")
_PARTIES = ListOf(item=_NAME, most=MAX_PARTIES)
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = Text(
    pattern=rf"(?:{_LABEL}\.)*{_LABEL}",
    like="a host's name in lower case, like api.flights.example",
    most=240,
)
_PORT = Number(low=1, high=65_535)

_DNS = Text(
    pattern=rf"(?:{_LABEL}\.)+{_LABEL}",
    like="a DNS name of two labels or more, like room.flights.example",
    most=200,
)

PROJECT = KeyedObject(
    keys={
        "contract": Key(shape=_NAME, about="The contract's name; the project's own where it is not stated."),
        "parties": Key(
            shape=MapOf(
                key=_NAME,
                item=KeyedObject(
                    keys={
                        "role": Key(
                            shape=Choice(words=tuple(role.value for role in Role)),
                            about="What the party is in the contract.",
                            required=True,
                        ),
                        "file": Key(shape=_PATH, about="The party file that it hands around.", required=True),
                        "seals": Key(
                            shape=MapOf(key=_NAME, item=_PATH, most=MAX_DATASETS),
                            about="Its datasets by name, each with the folder or file that `strongroom join` seals for it.",
                        ),
                    }
                ),
                most=MAX_PARTIES,
            ),
            about="Who signs. Without it there is one owner, whose identity `up` makes.",
        ),
        "datasets": Key(
            shape=MapOf(key=_NAME, item=_PATH, most=MAX_DATASETS),
            about="Data by name: a folder or file that `up` seals, or its owner's signed NAME.manifest.json.",
        ),
        "platforms": Key(
            shape=KeyedObject(
                keys={
                    "simulated": Key(
                        shape=Flag(), about="Accept rooms that no hardware vendor vouches for (local rooms)."
                    ),
                    "memory_guard": Key(
                        shape=Flag(),
                        about="Local rooms alone: whether the guard of their memory has to be on.",
                    ),
                    "any_machine": Key(
                        shape=Flag(),
                        about="Accept every machine that the nodes' and vendors' roots vouch for.",
                    ),
                    "bases": Key(shape=ListOf(item=_PATH), about="Local rooms: folders of bases."),
                    "nodes": Key(
                        shape=ListOf(item=_PATH),
                        about="Local rooms: what `strongroom node show --json` printed.",
                    ),
                    "references": Key(
                        shape=ListOf(item=_PATH),
                        about="Other platforms: what `strongroom measure … --reference` printed.",
                    ),
                    "machines": Key(
                        shape=ListOf(
                            item=Text(
                                pattern="[a-z]{2,10}=[0-9a-zA-Z:._-]{1,200}", like="TEE=ID, like snp=0102"
                            )
                        ),
                        about="Machines of other platforms, each TEE=ID.",
                    ),
                }
            ),
            about="In which rooms it may run. `up` fills in this machine's base and node.",
        ),
        "runs": Key(shape=Number(low=1, high=1_000_000_000), about="How often each room may be started."),
        "days": Key(shape=Number(low=1, high=36_500), about="For how many days from the draft on (30)."),
        "threshold": Key(
            shape=Number(low=1, high=MAX_PARTIES),
            about="Signatures that are needed; every party's if not stated.",
        ),
        "receipt_wait_seconds": Key(
            shape=Number(low=0, high=86_400),
            about="How long a room waits for brokers to record its receipt (600).",
        ),
        "exact_sizes": Key(shape=Flag(), about="Outputs and logs unpadded: their sizes show."),
        "exact_exit_status": Key(shape=Flag(), about="Receipts show the exit status, not only 0 or 1."),
    }
)

SERVICE = KeyedObject(
    keys={
        "image": Key(
            shape=_PATH,
            about="Where the image lies: an OCI layout, or an OCI or `docker save` archive. Else `image:` names it by digest in a registry.",
        ),
        "manifest": Key(
            shape=_PATH,
            about="Among several parties: the owner's signed NAME.manifest.json of the converted image.",
        ),
        "owner": Key(
            shape=_NAME,
            about="Among several parties: whose image it is, and who converts it by `strongroom join`.",
        ),
        "datasets": Key(
            shape=ListOf(item=_NAME, most=MAX_DATASETS),
            about="Datasets that the program reads at /data/NAME.",
        ),
        "outputs": Key(
            shape=ListOf(
                item=KeyedObject(
                    keys={
                        "path": Key(
                            shape=Text(pattern=OUTPUT_PATH.pattern, like=OUTPUT_LIKE, most=80),
                            about="Where the program writes what leaves the room: /out, or /out/NAME.",
                            required=True,
                        ),
                        "to": Key(shape=_PARTIES, about="Who may open it; the one owner if not stated."),
                        "max_bytes": Key(
                            shape=Number(low=1, high=1 << 40), about="The most that it may hold (16777216)."
                        ),
                    }
                )
            ),
            about="What may leave the room, and for whom. Nothing else does.",
        ),
        "logs": Key(shape=_PARTIES, about="Who may read what the program prints, sealed."),
        "certificate": Key(
            shape=KeyedObject(
                keys={
                    "names": Key(shape=ListOf(item=_DNS, most=32), about="DNS names in it.", required=True),
                    "lifetime_seconds": Key(
                        shape=Number(low=60, high=86_400), about="For how long it is valid (3600)."
                    ),
                    "key": Key(
                        shape=Choice(words=tuple(kind.value for kind in KeyKind)),
                        about="The kind of its key (ecdsa-p256).",
                    ),
                    "usage": Key(
                        shape=Choice(words=tuple(usage.value for usage in Usage)),
                        about="What it is for; both if not stated.",
                    ),
                    "trust_domain": Key(
                        shape=_DNS,
                        about="The SPIFFE trust domain of the room's name; the contract's own if not stated.",
                    ),
                    "interfaces": Key(
                        shape=ListOf(
                            item=Choice(words=tuple(interface.value for interface in Interface)),
                            most=len(Interface),
                        ),
                        about="By what else its program may ask for certificates: acme, spiffe-workload-api.",
                    ),
                    "delivery": Key(
                        shape=KeyedObject(
                            keys={
                                "folder": Key(
                                    shape=Text(
                                        pattern=r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}){1,16}",
                                        like="an absolute path in the room, like /etc/nginx/tls",
                                        most=512,
                                    ),
                                    about="The folder; the files are in FOLDER/current (/run/strongroom/tls).",
                                ),
                                "format": Key(
                                    shape=Choice(words=tuple(form.value for form in Format)),
                                    about="pem, or pkcs12.",
                                ),
                                "uid": Key(
                                    shape=Number(low=0, high=MAX_USER), about="Whose files; the image's user."
                                ),
                                "gid": Key(
                                    shape=Number(low=0, high=MAX_USER), about="Their group; the image's."
                                ),
                                "mode": Key(
                                    shape=Choice(words=tuple(mode.value for mode in Mode)),
                                    about='Of the key: "0400".',
                                ),
                                "signal": Key(
                                    shape=Choice(words=tuple(known.value for known in Signal)),
                                    about="Sent to the program when there is a new one.",
                                ),
                                "command": Key(
                                    shape=ListOf(
                                        item=Text(pattern=r"[^\x00]{1,4096}", like="a word", most=4096),
                                        repeats=True,
                                    ),
                                    about="Run when there is a new one, in place of a signal.",
                                ),
                                "check": Key(
                                    shape=_PORT,
                                    about="A port where the program speaks TLS, to see that it took the new one.",
                                ),
                            }
                        ),
                        about="Where the program finds it, and how it learns of a new one.",
                    ),
                }
            ),
            about="The certificate that the room gets once it has proved itself.",
        ),
        "open": Key(
            shape=ListOf(item=_PORT, most=32),
            about="Ports that take plain connections too. The machine's operator sees their bytes: the program has to end TLS by itself.",
        ),
        "peers": Key(
            shape=ListOf(
                item=Text(
                    pattern=rf"(?:{fields.NAME.pattern}):[0-9]{{1,5}}",
                    like="SERVICE:PORT, like db:5432",
                    most=80,
                ),
                most=32,
            ),
            about="Ports of other services that it reaches without waiting for them; those of `depends_on` it reaches anyway.",
        ),
        "egress": Key(
            shape=ListOf(
                item=KeyedObject(
                    keys={
                        "host": Key(shape=_HOST, about="The host's name.", required=True),
                        "port": Key(shape=_PORT, about="Its port.", required=True),
                        "authority": Key(
                            shape=_PATH,
                            about="A CA's certificate (PEM or DER): the room speaks TLS, and trusts this one alone.",
                        ),
                    }
                ),
                most=32,
            ),
            about="Hosts outside that it reaches. Nothing else is reached.",
        ),
        "renewal_seconds": Key(
            shape=Number(low=60, high=86_400), about="A service: it attests again so often (3600)."
        ),
        "wall_seconds": Key(
            shape=Number(low=1, high=30 * 86_400), about="A job: the most that its program may run (600)."
        ),
    }
)
