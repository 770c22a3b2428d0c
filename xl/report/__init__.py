"""What a run leaves for people to read: the report and the dataset card."""
