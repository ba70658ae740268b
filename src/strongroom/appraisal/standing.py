"""What is known of a piece of evidence, in the words of every verb and table: verified, refused, cannot tell, simulated.

A word of its own for each, since "accepted" says what a policy decided and never whose signature stands behind it:

  verified     signed by a key that leads to a vendor's root that is pinned here, and whole
  simulated    signed just so by a root that somebody named instead: software, or a vendor without a public root
  refused      a check of its verifier failed
  cannot tell  no signature was verified, for nothing that could vouch for one was at hand: neither yes nor no
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from strongroom.model.claims import Claims

VERIFIED, REFUSED, CANNOT_TELL, SIMULATED = "verified", "refused", "cannot tell", "simulated"
WORDS = (VERIFIED, REFUSED, CANNOT_TELL, SIMULATED)


def word(claims: Claims | None, *, vouched: bool) -> str:
    """The word for what verifying gave. claims: None where it gave none.

    vouched: whether anything was at hand that signatures are verified by: endorsements, or the evidence's own certificates.
    """
    if claims is None:
        return REFUSED if vouched else CANNOT_TELL
    return SIMULATED if claims.simulated else VERIFIED
