"""What `condconv predict` is made of: pictures and frames in, predictions out."""
