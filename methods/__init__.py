"""The competing methods, one file each; base, losses and augment are shared by several."""
