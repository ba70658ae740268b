"""The root of NVIDIA's GPUs and NVSwitches."""

from __future__ import annotations

from strongroom.evidence.roots.pin import Pin

PINS = (
    Pin(
        key="sha256:a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4",
        subject="O=NVIDIA,CN=NVIDIA Device Identity CA",
        source="NVIDIA nvtrust, local GPU verifier, verifier_device_root.pem (NVIDIA Device Identity CA, "
        "2021-11-05 to 9999-12-31)",
    ),
)
