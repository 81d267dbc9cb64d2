"""Quality and speed of an optimized model against the unoptimized one."""
