package agent

import (
	"context"
	"fmt"
	"time"
)

const (
	// engineAway is how long the engine may be away before the node says that it is: being started again takes less.
	engineAway = 20 * time.Second
	askLimit   = 5 * time.Second
)

// silence is since when the engine has not answered; zero: it did the last time.
type silence struct{ since time.Time }

// judge takes the answer to one more question, at now, and returns an error when it is time to say so.
func (s *silence) judge(err error, now time.Time) error {
	if err == nil {
		s.since = time.Time{}
		return nil
	}
	if s.since.IsZero() {
		s.since = now
	}
	if now.Sub(s.since) < engineAway {
		return nil
	}
	return fmt.Errorf("container engine does not answer: %w", err)
}

// healthy asks the engine for its images: what containers there are it says from memory.
func (a *Agent) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	_, err := a.cfg.Engine.ListImages(ctx)
	return a.silence.judge(err, time.Now())
}
