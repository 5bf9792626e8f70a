"""The methods that compete, one file each; base, losses and augment are what several share."""
