"""The fleet: user equipments with positions, arrivals and radio links that load the platform through the SDK.

Only the radio is simulated here: an upload and a download take as long as the shared radio model says. Everything else
is what a single UE does, many times.
"""
