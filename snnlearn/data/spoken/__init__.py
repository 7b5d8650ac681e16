"""Spoken digits as spikes: the files, what made them (`make_spoken`, `cochlea`), what they are good for (CARD.md)."""
