package remote

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// Bounds on a pack. The git library inflates every object of a pack in memory and resolves chains of deltas by
// recursion, so a small hostile pack could end the process: packs are looked through before it sees them.
const (
	maxObjects     = 1_000_000
	maxObjectBytes = 128 << 20 // one object, inflated
	maxInflated    = 4 << 30   // all objects, inflated
	maxChain       = 4095      // deltas on deltas, git's own limit
	maxRefDeltas   = 50_000    // deltas that name their base by id, whose chains cannot be followed beforehand
)

// checkPack reads a whole pack and says what is wrong with it.
func checkPack(r io.ReadSeeker) error {
	s := packfile.NewScanner(r)
	_, count, err := s.Header()
	if err != nil {
		return fmt.Errorf("read pack: %w", err)
	}
	if count > maxObjects {
		return fmt.Errorf("the pack is too large (got %d objects, want at most %d)", count, maxObjects)
	}
	c := packCheck{chains: map[int64]int{}}
	for range count {
		h, err := s.NextObjectHeader()
		if err != nil {
			return fmt.Errorf("read pack: %w", err)
		}
		if err := c.header(h); err != nil {
			return err
		}
		var start prefix
		if _, _, err := s.NextObject(&start); err != nil {
			return fmt.Errorf("read pack: %w", err)
		}
		if h.Type.IsDelta() {
			if err := c.delta(start.bytes()); err != nil {
				return err
			}
		}
	}
	if _, err := s.Checksum(); err != nil {
		return fmt.Errorf("read pack: %w", err)
	}
	return nil
}

type packCheck struct {
	inflated  int64
	refDeltas int
	chains    map[int64]int // length by offset, of deltas only
}

func (c *packCheck) header(h *packfile.ObjectHeader) error {
	switch h.Type {
	case plumbing.OFSDeltaObject:
		length := c.chains[h.OffsetReference] + 1
		if length > maxChain {
			return fmt.Errorf("the pack chains more than %d deltas", maxChain)
		}
		c.chains[h.Offset] = length
	case plumbing.REFDeltaObject:
		if c.refDeltas++; c.refDeltas > maxRefDeltas {
			return fmt.Errorf("the pack has more than %d deltas that name their base by id", maxRefDeltas)
		}
	}
	return c.size(h.Length)
}

// delta reads the size a delta says its result has.
func (c *packCheck) delta(start []byte) error {
	_, n := binary.Uvarint(start) // of the base
	if n <= 0 {
		return errors.New("the pack has a malformed delta")
	}
	result, n := binary.Uvarint(start[n:])
	if n <= 0 || result > 1<<62 {
		return errors.New("the pack has a malformed delta")
	}
	return c.size(int64(result))
}

func (c *packCheck) size(n int64) error {
	c.inflated += n
	if n < 0 || n > maxObjectBytes || c.inflated > maxInflated {
		return fmt.Errorf("the repository holds a file that is too large, or too much (got %d and %d bytes, want at most %d and %d)", n, c.inflated, maxObjectBytes, int64(maxInflated))
	}
	return nil
}

// prefix keeps the first bytes written to it.
type prefix struct {
	buf [2 * binary.MaxVarintLen64]byte
	n   int
}

// Write implements io.Writer.
func (p *prefix) Write(b []byte) (int, error) {
	p.n += copy(p.buf[p.n:], b)
	return len(b), nil
}

func (p *prefix) bytes() []byte { return p.buf[:p.n] }
