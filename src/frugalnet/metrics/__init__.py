"""What a network gets right and what it costs: pure functions of arrays, and measurements."""
