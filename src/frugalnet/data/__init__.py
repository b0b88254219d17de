"""Archive → arrays → views."""

ROOT = "tiny-imagenet-200"  # the archive's only top folder
DESCRIPTION = "pictures.json"  # of an archive that is packed from a person's own pictures
