"""HVSA: key-entity attention, and adaptive weights of alignment and uniformity on the hypersphere."""
