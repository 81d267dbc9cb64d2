"""Which denoising steps can be left out: calibrated on trajectories, decided by what the pictures lose, off where it does not pay."""
