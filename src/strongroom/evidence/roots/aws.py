"""The root of AWS Nitro enclaves and NitroTPM."""

from __future__ import annotations

from strongroom.evidence.roots.pin import Pin

PINS = (
    Pin(
        key="sha256:f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225",
        subject="CN=aws.nitro-enclaves,OU=AWS,O=Amazon,C=US",
        source="https://aws-nitro-enclaves.amazonaws.com/AWS_NitroEnclaves_Root-G1.zip, whose certificate has the "
        "SHA-256 fingerprint 64:1A:03:21:A3:E2:44:EF:E4:56:46:31:95:D6:06:31:7E:D7:CD:CC:3C:17:56:E0:98:93:F3:C6:8F:79:BB:5B "
        "(AWS Nitro Enclaves User Guide, verifying the root of trust)",
    ),
)
