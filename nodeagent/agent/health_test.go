package agent

import (
	"errors"
	"testing"
	"time"
)

func TestEngineMayBeAwayForAWhile(t *testing.T) {
	away, start := errors.New("connection refused"), time.Unix(0, 0)
	var s silence
	for _, step := range []struct {
		after time.Duration
		err   error
		well  bool
	}{
		{0, nil, true}, {time.Second, away, true}, {15 * time.Second, away, true}, {21 * time.Second, away, false},
		{22 * time.Second, nil, true}, {30 * time.Second, away, true},
	} {
		if got := s.judge(step.err, start.Add(step.after)); (got == nil) != step.well {
			t.Errorf("after %v: %v", step.after, got)
		}
	}
}
