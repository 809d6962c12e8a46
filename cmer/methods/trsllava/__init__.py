"""Text-to-text retrieval with rich texts of the images."""
