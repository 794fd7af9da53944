package network

import "time"

// Told returns cfg with f told of every change on the way of a sandbox.
func Told(cfg Config, f func(what string)) Config {
	cfg.did = f
	return cfg
}

// Sweeping returns cfg with links looked at that often.
func Sweeping(cfg Config, every time.Duration) Config {
	cfg.sweep = every
	return cfg
}
