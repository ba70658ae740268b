"""An append-only Merkle log of decisions (C2SP tlog-tiles)."""
