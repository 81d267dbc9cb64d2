"""Deployments to try, and the small model they use."""
