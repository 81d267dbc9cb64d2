"""Decides what to do from what is wanted and what is there.

Pure: a plan is a value of spec, observation, settings and the time, which the caller gives. Reads neither clock nor cluster, logs
nothing; so every decision has a test that needs no cluster.
"""
