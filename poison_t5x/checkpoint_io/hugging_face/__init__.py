"""Hugging Face's T5 folders, read and written."""
