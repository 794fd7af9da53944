//go:build !amd64

package runspec

// hasX32 is for amd64 only.
func hasX32() bool { return false }
