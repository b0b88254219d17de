"""Archive → arrays → views."""

ROOT = "tiny-imagenet-200"  # the archive's only top folder
IMAGE_SHAPE = (64, 64, 3)  # of every image: height, width, RGB
DESCRIPTION = "pictures.json"  # of an archive that is packed from a person's own pictures
