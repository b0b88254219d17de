"""How a network is exported."""

from pydantic import NonNegativeFloat, PositiveInt

from frugalnet.schema import Config


class ExportConfig(Config):
    """How networks are quantised, and what int8 may cost."""

    calibration_images: PositiveInt  # of the training split, evenly spaced
    max_loss_points: NonNegativeFloat  # of top-1; an int8 file that loses more is not registered
