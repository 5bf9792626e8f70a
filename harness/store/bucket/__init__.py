"""What a store in a bucket needs besides its files: locks that all machines see."""
