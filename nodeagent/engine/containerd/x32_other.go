//go:build !amd64

package containerd

// hasX32 is for amd64 only.
func hasX32() bool { return false }
