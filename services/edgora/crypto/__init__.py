"""Keys and what they do: signatures, certificates, sealed envelopes. No IO."""
