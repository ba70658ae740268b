"""The right answer for each member of the folder of strangers' files, by its name.

`says` and `never` are regular expressions, looked for line by line in everything that the member's commands print.
The exit code is the last command's; a member whose commands end in a pipe has none of ours to ask for.
`NOT_YET` lists members whose right answer the product does not give: a member there must be wrong, so that the list
is emptied as answers are mended. It is empty whenever a version leaves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NOT_YET: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must come out. exit: None where it is not asked. right: the answer in a few words, for the table."""

    right: str
    exit: int | None = None
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()

    def faults(self, code: int, output: str) -> list[str]:
        """What is not as expected, in words; empty when all is."""
        found = [] if self.exit in (None, code) else [f"exit {code}, expected {self.exit}"]
        found += [f"does not say {text!r}" for text in self.says if not re.search(text, output, re.MULTILINE)]
        found += [f"says {text!r}" for text in self.never if re.search(text, output, re.MULTILINE)]
        return found


def _runs(*says: str) -> Expected:
    return Expected(
        right="local will run",
        exit=0,
        says=(r"^local +will run$", *says),
        never=("^blocks", "^error"),
    )


def _would_not_run(right: str, *says: str, never: tuple[str, ...] = ()) -> Expected:
    return Expected(right=right, exit=3, says=(r"^local +will NOT run$", "^blocks", *says), never=never)


def _kind(kind: str, *found_in: str) -> Expected:
    return Expected(right=kind, says=(rf"^kind +{kind}", *found_in))


def _prints(right: str, *says: str) -> Expected:
    return Expected(right=right, exit=0, says=says, never=("^NO ", "Traceback"))


WRONG = {
    "archive-link-to-nothing": _would_not_run(
        "says that the layer is a link to nothing",
        "symbolic link",
        r"layer\.tar",
        r"'\.[0-9a-f]{64}\.tar'|/\.[0-9a-f]{64}\.tar",
    ),
    "arm64-v8-in-index-only": Expected(
        right="the arm64 image is chosen",
        says=(r"^image +sha256:4386de8cffac",),
        never=("convert-",),
    ),
    "azure-kid-taken-for-hcl": _kind("SNP report", r"^found in .*\.hwReport.*base64"),
    "azure-runtime-claims-alone": Expected(
        right="no evidence by itself",
        says=("of no kind that is known here|[Rr]untime claims",),
        never=(r"^kind +HCL report",),
    ),
    "cca-realm-corim": _prints("registers rim, rem0", "^OK .*'rim'"),
    "ccel-area-of-1-mib": _prints("20 events", "^OK 20$"),
    "compose-one-fault-at-a-time": Expected(
        right="all findings at once",
        exit=3,
        says=(
            r"(?i)anchor",
            r"(?i)merge|<<",
            r"'on'|\bon\b",
            "1\\.5|RATIO",
            r"(?i)digest",
            r"dstack\.sock",
            "post_start",
            "use_api_socket",
            *(rf"(?i)line {number}\b" for number in (1, 7, 8, 9)),
        ),
    ),
    "cosign-key-p384": Expected(
        right="signed by that key", exit=0, says=("^Verified OK$",), never=("^error",)
    ),
    "dev-nodes-in-layer": _runs("/dev"),
    "directory-twice": _runs(),
    "docker-zstd-media-type": _runs(),
    "dstack-scale-sev-snp": Expected(
        right="SNP report, twice",
        says=(r"^kind +SNP report", r"^found in +dstack, SCALE", r"^found in .*\.attestation.*dstack, SCALE"),
        never=("^error",),
    ),
    "fifo-in-layer": _runs(),
    "interpreter-covered-by-tmp": _would_not_run("the interpreter is covered", r"^blocks +interpreter"),
    "nvgpu-gb20x": _prints(
        "accepted, GB20X", r"^OK GB20X Blackwell 595\.58\.03 98\.02\.81\.00\.01 64 9b92cc3e"
    ),
    "nvidia-nras-request": Expected(
        right="report and certificates",
        says=(r"\['certificates', 'report'\]", "^OK "),
        never=("^NO ", "Traceback"),
    ),
    "nvidia-sdk-four-gpus": Expected(
        right="says that there are several",
        says=(r"(?i)several|\b(two|2) (pieces|devices|GPUs)|\[1\]",),
        never=("Traceback",),
    ),
    "opaque-dir-over-symlink": _runs(),
    "out-is-a-program": Expected(
        right="runs, or says whose /out is",
        says=(r"^local +will run$|/out is where (a|the) room",),
        never=("convert-not-directory",),
    ),
    "program-covered-by-data": _would_not_run("the program is covered", r"^blocks +program"),
    "run-is-a-symlink": _runs(),
    "snpguest-certs-folder": Expected(
        right="judged with them",
        says=("^verdict ",),
        never=(r"evidence\.parts", "expected a DER SEQUENCE"),
    ),
    "tar-without-end": _runs(),
    "tdx-quote-as-hexdump": _kind("TDX quote, version 4", r"^found in .*(?i:hex)"),
    "two-quotes-one-shown": Expected(
        right="both are named",
        says=(r"\.gateway_attestation\.intel_quote", r"\.model_attestations\[0\]\.intel_quote"),
    ),
    "whiteout-hardlink": _runs(),
    "xattr-apple-provenance": _runs(r"com\.apple\."),
    "xattr-posix-acl": _runs("(?i)access control list|posix_acl|ACL"),
    "zero-byte-layer": _runs(),
    "zeros-lastlog": _runs(),
    "zstd-skippable-first": _runs(),
}

RIGHT = {
    "azure-genoa": _prints("version 3, HCL version 2", "^OK .*report version 3 HCL version 2"),
    "azure-milan-live": _prints("version 3, HCL version 1", "^OK .*report version 3 HCL version 1"),
    "buildkit-attestation": _runs(),
    "crlf-entrypoint": _would_not_run("ends as on Windows", r"^blocks +interpreter", "as on Windows"),
    "docker-save-linked-layer": _runs(),
    "event-logs-of-real-boots": Expected(
        right="eight logs read",
        exit=0,
        says=tuple(
            rf"^OK {name}\S* {events} events$"
            for name, events in {
                "53ddf8f0": 87,
                "arch-linux": 24,
                "cos-101": 48,
                "cos-113": 43,
                "cos-85": 45,
                "rhel8": 82,
                "ubuntu-1804": 87,
                "ubuntu-2104": 111,
            }.items()
        ),
        never=("^NO ", "Traceback"),
    ),
    "hardlink-into-lower-layer": _runs(),
    "hardlink-target-removed-later": _runs(),
    "intel-collateral-forms": _prints("accepted, UpToDate", "^OK UpToDate"),
    "kaniko-absolute-names": _runs(),
    "layers-127": _runs(),
    "nvgpu-gb100": _prints("accepted, GB100", "^OK GB100 Blackwell .* 64 "),
    "redis-workdir-data": _runs("^warns +volumes", "^warns +working-directory"),
    "selinux-on-root": _runs(),
    "umoci-double-whiteout": _runs(),
    "user-overlay-xattrs": _runs(),
}
