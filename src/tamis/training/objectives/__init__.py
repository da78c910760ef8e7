"""What fine-tuning minimises: one file a loss."""
