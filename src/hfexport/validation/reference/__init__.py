"""The reference: outputs of the unpatched eager model, computed in a process of its own."""
