// Package collect frees the disk of images that nothing on the node needs any more: when it is nearly full, least
// recently used first, until there is room again.
//
// It owns which images go and when. It must not touch containers, nor images that could not be had again: what was
// loaded from an archive stays.
package collect

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-dev/slipway/nodeagent/engine"
)

// observed is all a plan depends on.
type observed struct {
	now    time.Time
	images []engine.Image
	inUse  map[string]bool // names and ids of images that a container was made of, or a Pod of this node names
	minAge time.Duration   // an image that came or was used less long ago stays: its Pod may be on the way
}

// removal is an image to remove, under all its names.
type removal struct {
	id    string
	refs  []string
	bytes int64 // compressed
	since time.Time
}

// String is the line for logs and golden tests.
func (r removal) String() string {
	return fmt.Sprintf("remove image %s, unused since %s", strings.Join(r.refs, ", "), r.since.UTC().Format(time.RFC3339))
}

// kept counts images that stay, by why.
type kept struct{ inUse, loaded, young int }

// String says what stays and why: "3 are in use, 2 came from archives and could not be had again".
func (k kept) String() string {
	var parts []string
	for _, p := range []struct {
		n   int
		why string
	}{{k.inUse, "in use"}, {k.loaded, "loaded from archives, so that no registry has them"}, {k.young, "used a moment ago"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.why))
		}
	}
	if len(parts) == 0 {
		return "none is left"
	}
	return strings.Join(parts, ", ")
}

// plan returns the images that may go, in the order in which they should, and counts those that stay.
func plan(o observed) ([]removal, kept) {
	var stay kept
	var out []removal
	for _, names := range byID(o.images) {
		r := removal{id: names[0].ID, bytes: names[0].Bytes}
		used, loaded := o.inUse[r.id], false
		for _, img := range names {
			r.refs = append(r.refs, img.Ref)
			used = used || o.inUse[img.Ref]
			loaded = loaded || img.Loaded
			if img.Since.After(r.since) {
				r.since = img.Since
			}
		}
		switch {
		case used:
			stay.inUse++
		case loaded:
			stay.loaded++
		case o.now.Sub(r.since) < o.minAge && r.since.Sub(o.now) < o.minAge: // one of the future is of a clock that was set back
			stay.young++
		default:
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b removal) int { return cmp.Or(a.since.Compare(b.since), strings.Compare(a.id, b.id)) })
	return out, stay
}

// byID groups images that are the same under several names: removing one name alone frees nothing.
func byID(images []engine.Image) map[string][]engine.Image {
	groups := map[string][]engine.Image{}
	for _, img := range images {
		groups[img.ID] = append(groups[img.ID], img)
	}
	return groups
}
