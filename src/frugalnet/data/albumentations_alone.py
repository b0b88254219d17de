"""Imports albumentations without the torch that it would import, for seconds, for tensors that nothing here makes."""

import gc
import sys

if "torch" not in sys.modules:
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes its import fail, which albumentations allows for
    import albumentations  # noqa: F401

    del sys.modules["torch"]
    gc.freeze()  # what is imported stays: the processes that fork from here need not look through it, or copy it
