package containerd

import (
	"context"
	"time"

	"google.golang.org/grpc"
)

// How long containerd may take to answer. It is far more than it ever needs: one that is reached accepts connections
// and never answers must not hold up its callers for ever.
const (
	answerLimit = 30 * time.Second
	createLimit = 2 * time.Minute // it starts a shim, mounts and runs runc, on a machine that may be busy
)

// limitOf is how long a call may take; zero for ever.
func limitOf(method string) time.Duration {
	switch method {
	case "/containerd.services.tasks.v1.Tasks/Wait":
		return 0
	case "/containerd.services.tasks.v1.Tasks/Create", "/containerd.services.tasks.v1.Tasks/Start", "/containerd.services.diff.v1.Diff/Apply":
		return createLimit
	}
	return answerLimit
}

// bound gives every call that has no earlier deadline one.
func bound(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if limit := limitOf(method); limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}
