"""Every architecture and task through the command line, in both formats: `make conformance`."""
