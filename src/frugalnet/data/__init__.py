"""Archive → arrays → views."""

ROOT = "tiny-imagenet-200"  # the archive's only top folder
