"""The names of checks that verdicts record, each written here alone.

Ledgers and proof packs hold them for ever: in one version of the record form no name changes its meaning
(docs/verdicts.md). A name that ends in a dot is a family's; what follows it is a party, a register, a fact, a component or an advisory.
"""

from __future__ import annotations

# What a broker asks before all else: does its own party stand behind this contract?
OWN_SIGNATURE = "own.signature"
OWN_ENTRY = "own.entry"
OWN_DISK = "own.disk"
# The broker's own checks of a request.
NONCE_FRESH = "nonce.fresh"
NONCE_CONTRACT = "nonce.contract"
REQUEST_ROLE = "request.role"
RUN_UNIQUE = "run.unique"
CERTIFICATE_NAMES = "certificate.names"
CERTIFICATE_KEY = "certificate.key"
CERTIFICATE_KIND = "certificate.kind"
KEYS_PRESENT = "keys.present"
ENDORSEMENTS_FOUND = "endorsements.found"
ENDORSEMENTS_SIZE = "endorsements.size"
VERDICT_GATES = "verdict.gates"
VERDICT_LIFETIME = "verdict.lifetime"
# A contract's versions.
CONTRACT_WITHDRAWN = "contract.withdrawn"
CONTRACT_EARLIER = "contract.earlier"
CONTRACT_VERSION = "contract.version"
CONTRACT_REPLACES = "contract.replaces"
# The contract's terms, and whether it can be kept at all.
CONTRACT_APPROVALS = "contract.approvals"
CONTRACT_APPROVAL_BY = "contract.approvals."
CONTRACT_VALIDITY = "contract.validity"
CONTRACT_RUNS = "contract.runs"
CONTRACT_BROKER = "contract.broker"
CONTRACT_SIMULATED = "contract.simulated"
CONTRACT_OUTPUTS = "contract.outputs"
CONTRACT_ROLES = "contract.roles"
# The evidence: verified, or refused by a check of its verifier.
EVIDENCE = "evidence."
EVIDENCE_VERIFIED = "evidence.verified"
EVIDENCE_FORMAT = "evidence.format"
BINDING_CONTRACT = "binding.contract"
# The platform.
PLATFORM_TEE = "platform.tee"
PLATFORM_SIMULATED = "platform.simulated"
PLATFORM_DEBUG = "platform.debug"
PLATFORM_MEMORY_GUARD = "platform.memory_guard"
PLATFORM_ROOT = "platform.root"
PLATFORM_MACHINE = "platform.machine"
PLATFORM_REFERENCE = "platform.reference"
PLATFORM_REGISTER = "platform.reference."
PLATFORM_CONTRACT = "platform.contract"
# What the policy asks of the platform.
PROFILE_MACHINES = "platform.profile.machines"
PROFILE_PRODUCT = "platform.profile.product"
PROFILE_ALLOWANCES = "platform.profile.allowances"
PLATFORM_STATUS = "platform.status"
PLATFORM_ADVISORY = "platform.advisory."
PLATFORM_REVOCATION = "platform.revocation"
PLATFORM_VMPL = "platform.vmpl"
PLATFORM_AGE = "platform.age"
PLATFORM_DEFAULT = "platform.default."
PLATFORM_FACT = "platform.fact."
PLATFORM_COMPARED = "platform.compared"
PLATFORM_TCB = "platform.tcb."
PLATFORM_PRODUCT = "platform.product"
# The room's attached devices.
DEVICES = "platform.devices"
DEVICES_DEBUG = "platform.devices.debug"
DEVICES_SIMULATED = "platform.devices.simulated"
DEVICES_ROOT = "platform.devices.root"
DEVICES_MACHINE = "platform.devices.machine"
DEVICES_FACT = "platform.devices.fact."
DEVICES_REFERENCE = "platform.devices.reference"
DEVICES_COMPARED = "platform.devices.compared"
# Asked of claims where there is neither contract nor policy; never recorded.
CLAIMS_DEBUG = "debug"
CLAIMS_STATUS = "status"
CLAIMS_SIMULATED = "simulated"
CLAIMS_SERVICE_TD = "mr_service_td"
CLAIMS_SEPT_VE = "td_attributes.sept_ve_disable"
