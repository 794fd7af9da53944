package shim

import (
	"fmt"
	"os"
	"time"
)

// note is the path of a file that says how a container ended, for those who were away then: "CODE NANOSECONDS". It is
// there and empty from the container's creation on. The empty path is of a container without one.
type note string

// begin makes the file. Where that is not possible, on a full disk, there is no note: a container runs without one.
func (n note) begin() note {
	if n == "" || os.WriteFile(string(n), nil, 0o600) != nil {
		return ""
	}
	return n
}

// end writes the note as a whole or not at all.
func (n note) end(code uint32, at time.Time) error {
	if n == "" {
		return nil
	}
	next := string(n) + ".next"
	if err := os.WriteFile(next, fmt.Appendf(nil, "%d %d\n", code, at.UnixNano()), 0o600); err != nil {
		return err
	}
	return os.Rename(next, string(n))
}
