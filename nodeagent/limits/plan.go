// Package limits tells when this process or its machine comes near a limit of the system: file descriptors, processes
// and threads, inodes. It names the limit, its value and what raises it, once, and says when there is room again.
//
// It must not raise limits or end anything: it looks and tells.
package limits

import "fmt"

// Usage is how much of one limit is used.
type Usage struct {
	Name  string // "file descriptors of this process"; unique
	Used  uint64
	Limit uint64 // 0: none
	Raise string // what to do: "raise LimitNOFILE of the service (ulimit -n)"
}

// Bounds in percent: a limit is near from the first on, and is not any more below the second.
const (
	near = 90
	calm = 80
)

// Line is what is to be told about one limit.
type Line struct {
	Near bool // false: there is room again
	Text string
}

// Plan says what is to be told of usages when the limits in told are known to be near, and which are near now.
func Plan(told map[string]bool, usages []Usage) (lines []Line, now map[string]bool) {
	now = map[string]bool{}
	for _, u := range usages {
		if u.Limit == 0 {
			continue
		}
		percent := u.Used * 100 / u.Limit
		switch {
		case percent >= near, told[u.Name] && percent >= calm:
			now[u.Name] = true
			if !told[u.Name] {
				lines = append(lines, Line{true, fmt.Sprintf("%s: %d of %d are in use: %s", u.Name, u.Used, u.Limit, u.Raise)})
			}
		case told[u.Name]:
			lines = append(lines, Line{false, fmt.Sprintf("%s: %d of %d are in use, there is room again", u.Name, u.Used, u.Limit)})
		}
	}
	return lines, now
}
