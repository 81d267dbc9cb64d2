"""Variables by which the operator tells a container what it reads there: both sides name them by what stands here."""

STORE_URI_VARIABLE = "DIFFUSION_STORE_URI"
"""The bucket, as `s3://bucket/prefix`, of which the container's engine store is a copy; unset where the store is a volume."""
