"""Runs an engine: schedule, denoising loop, step cache, executors, and the models of a Triton repository."""
