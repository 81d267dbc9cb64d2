"""Trains the digits model: VAE, then a teacher with guidance, then a student that needs four steps and none."""
