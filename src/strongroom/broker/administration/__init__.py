"""What a broker's own party changes, each an entry of its ledger."""
