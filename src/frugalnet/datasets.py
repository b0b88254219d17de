"""Which data a network is of, where that decides what is said of it."""


def is_tiny_imagenet(name: str) -> bool:
    """Whether the data of that name are the paper's, or some of them: data of the user's have other names."""
    return name.startswith("tiny-imagenet")
