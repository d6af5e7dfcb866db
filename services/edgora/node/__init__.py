"""An edge server: its API half (api, service, duties) and its consensus half (driver, consensus)."""
