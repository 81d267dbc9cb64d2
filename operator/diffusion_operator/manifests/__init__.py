"""Kubernetes objects as values, one file per child object.

Pure: builds dicts from values and reads neither clock, cluster nor file. A field that equals Kubernetes' own default is left out, so
that server-side apply owns what this project means and nothing else; every call returns new dicts, for callers may change them.
"""
