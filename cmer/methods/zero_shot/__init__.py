"""The backbone as it is."""
