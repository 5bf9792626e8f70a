"""The methods that compete, one file each; losses, msi, augment and settings are what several share."""
