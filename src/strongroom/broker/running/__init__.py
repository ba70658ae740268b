"""What a room asks its brokers for while it runs: renewals, a watch, and receipts."""
