package volume

import (
	"testing"
	"time"
)

func TestATokenStaysWhileBothClocksSaySo(t *testing.T) {
	const year = 365 * 24 * time.Hour
	issued := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	tok := newToken("x", issued, issued.Add(time.Hour))
	for name, c := range map[string]struct {
		passed, set time.Duration
		good        bool
	}{
		"young":                             {time.Minute, 0, true},
		"the clock corrected a little":      {time.Minute, -30 * time.Second, true},
		"after four fifths of its life":     {48 * time.Minute, 0, false},
		"the clock set a year on":           {time.Minute, year, false},
		"the clock set a year back":         {time.Minute, -year, false},
		"set on until it has nearly ended":  {10 * time.Minute, 45 * time.Minute, false},
		"old, with the clock set back":      {50 * time.Minute, -50 * time.Minute, false},
		"set back to before it was made":    {10 * time.Minute, -20 * time.Minute, false},
		"set back, but after it was made":   {20 * time.Minute, -10 * time.Minute, true},
		"the moment it was made":            {0, 0, true},
		"the process slept, the wall knows": {time.Minute, 3 * time.Hour, false},
	} {
		now := issued.Add(c.passed)
		if got := tok.good(now, now.Add(c.set)); got != c.good {
			t.Errorf("%s: good %t, want %t", name, got, c.good)
		}
	}
}
