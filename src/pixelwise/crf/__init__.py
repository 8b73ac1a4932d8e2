"""The fully connected CRF: energy, mean field, the permutohedral lattice and its slow exact twin."""
