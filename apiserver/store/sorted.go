package store

import (
	"iter"
	"slices"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/slipway-dev/slipway/apiserver/api"
)

// item is an object in the cache. It is immutable.
type item struct {
	namespace, name string
	revision        uint64
	obj             api.Object
}

// compare orders items by namespace and name.
func (it *item) compare(namespace, name string) int {
	if c := strings.Compare(it.namespace, namespace); c != 0 {
		return c
	}
	return strings.Compare(it.name, name)
}

// chunkSize is the most items a chunk holds: what an insertion moves and a first write after a snapshot copies.
const chunkSize = 128

// sorted keeps items in order, in chunks. A snapshot costs nothing and is never changed: what it shares with the
// sorted is copied when it is next written to. One writer; the caller keeps readers out while it writes.
type sorted struct {
	chunks []*chunk
	size   int
	shared atomic.Bool // a snapshot was taken since the last write
	own    uint64      // generation of what no snapshot shares
	top    uint64      // generation of the slice chunks
}

// elsewhere is a generation that no cache's own sorted reaches: for one that begins with another's chunks.
const elsewhere = 1 << 63

type chunk struct {
	generation uint64
	items      []*item // never empty
}

// snapshot is one state of a sorted.
type snapshot struct {
	chunks []*chunk
	size   int
}

func (s *sorted) snapshot() snapshot {
	s.shared.Store(true)
	return snapshot{chunks: s.chunks, size: s.size}
}

func (s *sorted) get(namespace, name string) *item {
	return snapshot{chunks: s.chunks}.get(namespace, name)
}

// put adds or replaces an item.
func (s *sorted) put(it *item) {
	s.unshare()
	if len(s.chunks) == 0 {
		s.chunks = append(s.chunks, &chunk{s.own, []*item{it}})
		s.size = 1
		return
	}
	c := max(0, snapshot{chunks: s.chunks}.chunkOf(it.namespace, it.name))
	target := s.writable(c)
	i, found := target.find(it.namespace, it.name)
	if found {
		target.items[i] = it
		return
	}
	target.items = slices.Insert(target.items, i, it)
	s.size++
	if len(target.items) > chunkSize {
		s.split(c)
	}
}

// remove takes an item out, if it is there.
func (s *sorted) remove(namespace, name string) {
	c := (snapshot{chunks: s.chunks}).chunkOf(namespace, name)
	if c < 0 {
		return
	}
	if _, found := s.chunks[c].find(namespace, name); !found {
		return
	}
	s.unshare()
	target := s.writable(c)
	i, _ := target.find(namespace, name)
	target.items = slices.Delete(target.items, i, i+1)
	s.size--
	if len(target.items) == 0 {
		s.chunks = slices.Delete(s.chunks, c, c+1)
	}
}

// replace makes other's items this sorted's; other, which may be nil, is not used any more.
func (s *sorted) replace(other *sorted) {
	if other == nil {
		other = &sorted{}
	}
	s.chunks, s.size, s.own, s.top = other.chunks, other.size, other.own, other.top
	s.shared.Store(false)
}

// unshare makes the slice of chunks this sorted's own.
func (s *sorted) unshare() {
	if s.shared.Swap(false) {
		s.own++
	}
	if s.top != s.own {
		s.chunks = slices.Clone(s.chunks)
		s.top = s.own
	}
}

// writable returns chunk c, copied if a snapshot shares it.
func (s *sorted) writable(c int) *chunk {
	if s.chunks[c].generation != s.own {
		items := make([]*item, len(s.chunks[c].items), min(chunkSize, len(s.chunks[c].items)+8)+1)
		copy(items, s.chunks[c].items)
		s.chunks[c] = &chunk{s.own, items}
	}
	return s.chunks[c]
}

func (s *sorted) split(c int) {
	full := s.chunks[c]
	half := len(full.items) / 2
	upper := &chunk{s.own, slices.Clone(full.items[half:])}
	clear(full.items[half:])
	full.items = full.items[:half]
	s.chunks = slices.Insert(s.chunks, c+1, upper)
}

// find returns the first chunk that begins at or after a name.
func find(chunks []*chunk, namespace, name string) int {
	return sort.Search(len(chunks), func(i int) bool { return chunks[i].items[0].compare(namespace, name) >= 0 })
}

func (c *chunk) find(namespace, name string) (int, bool) {
	i := sort.Search(len(c.items), func(i int) bool { return c.items[i].compare(namespace, name) >= 0 })
	return i, i < len(c.items) && c.items[i].compare(namespace, name) == 0
}

// chunkOf returns the chunk that would hold a name, or -1.
func (s snapshot) chunkOf(namespace, name string) int {
	c := find(s.chunks, namespace, name)
	if c < len(s.chunks) && s.chunks[c].items[0].compare(namespace, name) == 0 {
		return c
	}
	return c - 1
}

func (s snapshot) get(namespace, name string) *item {
	c := s.chunkOf(namespace, name)
	if c < 0 {
		return nil
	}
	if i, found := s.chunks[c].find(namespace, name); found {
		return s.chunks[c].items[i]
	}
	return nil
}

// from yields the items at and after a name, in order.
func (s snapshot) from(namespace, name string) iter.Seq[*item] {
	return func(yield func(*item) bool) {
		c := max(0, s.chunkOf(namespace, name))
		for ; c < len(s.chunks); c++ {
			items := s.chunks[c].items
			i, _ := s.chunks[c].find(namespace, name)
			for ; i < len(items); i++ {
				if !yield(items[i]) {
					return
				}
			}
		}
	}
}
