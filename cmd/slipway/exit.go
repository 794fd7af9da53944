package main

import (
	"errors"
	"fmt"
)

// Exit codes. Scripts tell by them whose turn it is.
const (
	exitUsage   = 2 // a flag, an argument or the machine is not as it must be: nothing was done
	exitInvalid = 3 // the manifests have errors
	exitBusy    = 4 // another process holds the data directory
	exitFailed  = 1 // it was tried and did not work
)

// exitError is an error with the code the process ends with. Without err nothing is printed: it was said already.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return fmt.Sprint(e.err) }
func (e exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return exitError{exitUsage, fmt.Errorf(format, args...)}
}

// failed marks err as something that was tried; what is marked already stays as it is.
func failed(err error) error {
	var marked exitError
	if err == nil || errors.As(err, &marked) {
		return err
	}
	return exitError{exitFailed, err}
}
