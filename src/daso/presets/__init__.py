"""Named settings: what the papers and the benchmarks use."""
