"""How much accuracy does a convolutional network buy for its computational cost?"""

import os

# Nothing phones home: each of these libraries reads its switch when it is imported.
for _switch in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DVC_NO_ANALYTICS", "NO_ALBUMENTATIONS_UPDATE"):
    os.environ.setdefault(_switch, "true")
# Nor does a picture of a few kilobytes unpack to gigabytes: OpenCV refuses to decode what is larger (in pixels).
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**24))
