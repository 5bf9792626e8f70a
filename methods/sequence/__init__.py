"""Methods that learn from responses of several tokens; one file each."""
