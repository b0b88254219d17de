"""Import albumentations without torch, which it would import for tensors that nothing here makes: it takes seconds."""

import gc
import sys

if "torch" not in sys.modules:
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes its import fail, which albumentations allows for
    import albumentations  # noqa: F401

    del sys.modules["torch"]
    gc.freeze()  # what is imported stays: the processes that fork from here need not look through it, or copy it
