package crilog

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stampLayout follows the name of a log file when it is rotated, as with the kubelet: "0.log.20060102-150405". A
// number follows where that would not come after the file rotated before: two in one second, a clock set back.
const stampLayout = "20060102-150405"

// rotated is a file moved aside.
type rotated struct {
	stamp string // as in stampLayout
	n     int
}

func (r rotated) name() string {
	if r.n == 0 {
		return r.stamp
	}
	return fmt.Sprintf("%s-%03d", r.stamp, r.n)
}

func (r rotated) compare(other rotated) int {
	return cmp.Or(strings.Compare(r.stamp, other.stamp), cmp.Compare(r.n, other.n))
}

// parseRotated reads what follows a log file's name and a dot.
func parseRotated(suffix string) (rotated, bool) {
	if len(suffix) < len(stampLayout) {
		return rotated{}, false
	}
	stamp, rest := suffix[:len(stampLayout)], suffix[len(stampLayout):]
	if _, err := time.Parse(stampLayout, stamp); err != nil {
		return rotated{}, false
	}
	if rest == "" {
		return rotated{stamp: stamp}, true
	}
	n, err := strconv.Atoi(strings.TrimPrefix(rest, "-"))
	return rotated{stamp, n}, err == nil && n > 0 && rest[0] == '-'
}

// successor is the name of the file rotated now, after the newest there is: names tell the order, whatever the clock
// did.
func successor(newest rotated, now time.Time) rotated {
	next := rotated{stamp: now.UTC().Format(stampLayout)}
	if next.compare(newest) <= 0 {
		next = rotated{newest.stamp, newest.n + 1}
	}
	return next
}

// aside lists the rotated files, oldest first. Files of other names are not ours.
func (f *File) aside() []rotated {
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return nil
	}
	var found []rotated
	for _, e := range entries {
		if suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(f.path)+"."); ok {
			if r, ok := parseRotated(suffix); ok {
				found = append(found, r)
			}
		}
	}
	slices.SortFunc(found, rotated.compare)
	return found
}

// rotate moves the file aside and begins a new one. When that is impossible the old one goes on: a log too long is
// better than none.
func (f *File) rotate() {
	now := f.now()
	if f.sealed || now.Before(f.retry) {
		return
	}
	found := f.aside()
	var newest rotated
	if len(found) > 0 {
		newest = found[len(found)-1]
	}
	next := successor(newest, now)
	to := f.path + "." + next.name()
	if os.Rename(f.path, to) != nil {
		f.retry = now.Add(retryEvery)
		return
	}
	old, inode, size := f.file, f.inode, f.size
	f.file = nil
	if !f.open() && os.Rename(to, f.path) == nil {
		f.file, f.inode, f.size = old, inode, size
		return
	}
	old.Close()
	found = append(found, next)
	for len(found) > max(f.limits.Files-1, 0) {
		os.Remove(f.path + "." + found[0].name())
		found = found[1:]
	}
}
