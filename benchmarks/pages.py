"""Put the figures of benchmarks/results/ into README.md and docs/, and draw their pictures."""
