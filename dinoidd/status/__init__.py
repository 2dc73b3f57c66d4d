"""How far a run is, told from its files alone: while it works, from any machine, and afterwards."""
