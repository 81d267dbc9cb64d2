"""Calibrates which denoising steps may be left out."""
