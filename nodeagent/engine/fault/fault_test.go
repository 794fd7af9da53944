package fault

import (
	"errors"
	"testing"
)

func TestCommandError(t *testing.T) {
	for text, want := range map[string]string{
		`failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "nosuch": executable file not found in $PATH: unknown`: `exec: "nosuch": executable file not found in $PATH`,
		`OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec /etc/passwd: permission denied: unknown`:                                            `exec /etc/passwd: permission denied`,
		`OCI runtime create failed: runc create failed: unable to start container process: error during container init: error mounting "/x" to rootfs at "/y": no such file`:                                     "",
	} {
		if got := Command(errors.New(text)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
