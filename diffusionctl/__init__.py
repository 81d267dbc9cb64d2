"""The command line: validate, plan, build, run and ask, on one machine without a cluster."""
