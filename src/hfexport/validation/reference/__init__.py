"""The reference: what the unpatched eager model answers, computed in a process of its own."""
