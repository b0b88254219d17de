"""What the stages stored of each network, and the networks compared: figures over seeds, paired differences."""
