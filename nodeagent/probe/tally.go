package probe

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// tally counts the answers of one probe against its thresholds. Looks made faster than the period count as
// successes, never as failures: a probe fails no sooner than its thresholds say.
type tally struct {
	period            time.Duration
	successes, fails  int
	needGood, needBad int
	hurry             bool          // looks sooner than its period until the first success
	soon              time.Duration // the next hurried pause
	succeeded         bool          // ever
	counted           time.Time     // when a failure last counted
}

// verdict is what an answer adds up to.
type verdict struct {
	good, bad bool // a threshold is reached
	tell      bool // a failure worth an event
}

func newTally(p *corev1.Probe, k kind) *tally {
	t := &tally{
		period:   time.Duration(max(p.PeriodSeconds, 1)) * time.Second,
		needGood: max(int(p.SuccessThreshold), 1),
		needBad:  max(int(p.FailureThreshold), 1),
		hurry:    k != liveness,
		soon:     firstLook,
	}
	if p.PeriodSeconds == 0 {
		t.period = 10 * time.Second
	}
	if p.FailureThreshold == 0 {
		t.needBad = 3
	}
	return t
}

func (t *tally) add(a answer, now time.Time) verdict {
	if a.ok {
		t.succeeded, t.fails = true, 0
		t.successes++
		return verdict{good: t.successes >= t.needGood}
	}
	t.successes = 0
	if now.Sub(t.counted) < t.period && t.hurries() {
		return verdict{}
	}
	t.counted = now
	t.fails++
	bad := t.fails >= t.needBad
	return verdict{bad: bad, tell: bad || t.fails > 1 || t.succeeded}
}

func (t *tally) hurries() bool { return t.hurry && !t.succeeded }

// next returns the pause until the next look.
func (t *tally) next() time.Duration {
	if !t.hurries() {
		return t.period
	}
	pause := min(t.soon, t.period)
	t.soon *= 2
	return pause
}
