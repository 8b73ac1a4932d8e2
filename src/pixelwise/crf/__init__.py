"""The fully connected CRF: energy, mean field, the permutohedral lattice and its slow exact twin.

- `dense`: images, with the two kernels of the paper and the published parameters; start here.
- `mean_field`: any points, any number of Gaussian kernels over own features; `MeanField` serves many inferences.
- `lattice`: the filter alone.
- `exact`, `divergence`: the same without approximation, and the authors' number to watch.
"""
