package event

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/apiserver/store"
)

// fewNames is how many names are kept at least before those of Events that are gone are forgotten.
const fewNames = 4096

// names knows the Events there are, so that an equal one is counted and not made anew, also after a restart. It is used
// by Run alone.
type names struct {
	known map[identity]string
	most  int
	last  int64
}

// find returns the name of the Event equal to id, or nothing.
func (n *names) find(ctx context.Context, client store.Reader, id identity) (string, error) {
	if n.known == nil || len(n.known) > n.most {
		events, err := store.All[*corev1.Event](ctx, client, store.ListOptions{})
		if err != nil {
			return "", fmt.Errorf("list events: %w", err)
		}
		n.known = make(map[identity]string, len(events))
		for _, ev := range events {
			n.known[identityOf(ev)] = ev.Name
		}
		n.most = max(fewNames, 2*len(events))
	}
	return n.known[id], nil
}

// stamp returns a number for a new Event that grows with each, and with time.
func (n *names) stamp(at time.Time) int64 {
	n.last = max(n.last+1, at.UnixMicro())
	return n.last
}
