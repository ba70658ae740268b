"""Wire formats: bounds-checked reading, strict JSON, DSSE envelopes."""
