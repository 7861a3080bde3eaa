"""Mutation tests: finished artifacts changed in one place each, and whether `hfexport verify` refuses them."""
