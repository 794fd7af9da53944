// Package fault sorts containerd's and runc's errors into the classes of package engine, and finds the sentence in
// them that helps.
package fault

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// Classify wraps an error of containerd's with the engine's class for it.
func Classify(verb string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), status.Code(err) == codes.Canceled:
		return fmt.Errorf("%s: %w", verb, context.Canceled)
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", verb, context.DeadlineExceeded)
	case Unavailable(err):
		return fmt.Errorf("%s: %w: %w", verb, engine.ErrUnavailable, Plain(err))
	case errdefs.IsNotFound(Native(err)):
		return fmt.Errorf("%s: %w: %w", verb, engine.ErrNotFound, Plain(err))
	}
	return fmt.Errorf("%s: %w", verb, Plain(err))
}

// Native turns an error of a raw gRPC call into one that errdefs knows; others stay.
func Native(err error) error {
	if _, ok := status.FromError(err); ok {
		return errgrpc.ToNative(err)
	}
	return err
}

// Unavailable tells that containerd did not answer.
func Unavailable(err error) bool {
	return errdefs.IsUnavailable(Native(err)) || status.Code(err) == codes.Unavailable
}

// Late tells that containerd, or a shim behind it, did not answer in time.
func Late(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded || errdefs.IsDeadlineExceeded(Native(err))
}

// Plain is the error without gRPC's dress.
func Plain(err error) error {
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Message())
	}
	return err
}

// LostShim tells errors that mean the shim ended while it was asked: another try gets a new one.
func LostShim(err error) bool {
	text := err.Error()
	return strings.Contains(text, "ttrpc: closed") || strings.Contains(text, "shim is shutting down") ||
		strings.Contains(text, "containerd.sock.ttrpc") || strings.Contains(text, "failed to start shim") && strings.Contains(text, "connection refused")
}

var (
	// commandFault matches what runc says when a container is sound and its command is not.
	commandFault = regexp.MustCompile(`(?:^|[ :])(exec:? (?:"|/).*|chdir to cwd .*)$`)
	// runcPreamble is what comes before runc's useful sentence.
	runcPreamble = regexp.MustCompile(`^.*(?:OCI runtime (?:create|start|exec) failed|error during container init|unable to start container process): `)
)

// Command returns runc's sentence on a command that cannot be executed, or "".
func Command(err error) string {
	text := strings.TrimSuffix(strings.TrimSpace(Plain(err).Error()), ": unknown")
	if m := commandFault.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// Runc is runc's useful last sentence.
func Runc(err error) string {
	text := strings.TrimSuffix(strings.TrimSpace(Plain(err).Error()), ": unknown")
	return runcPreamble.ReplaceAllString(text, "")
}

// NotFound tells that containerd does not know what it was asked for.
func NotFound(err error) bool { return errdefs.IsNotFound(Native(err)) }
