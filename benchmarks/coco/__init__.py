"""Further benchmarks whose images are COCO's, or COCO's for the most part; one file each."""
