package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-dev/slipway/nodeagent/engine"
	"github.com/slipway-dev/slipway/nodeagent/engine/imagestore"
	"github.com/slipway-dev/slipway/nodeagent/stats"
)

// Defaults, as the kubelet's.
const (
	defaultHigh   = 85
	defaultLow    = 80
	defaultMinAge = 2 * time.Minute
	defaultPeriod = 10 * time.Second
	notePeriod    = 5 * time.Minute
)

// shelf is what of an engine the collector needs.
type shelf interface {
	ListImages(ctx context.Context) ([]engine.Image, error)
	RemoveImage(ctx context.Context, ref string) error
	NoteUse(ctx context.Context, ref string) error
}

// Config says what to watch over.
type Config struct {
	Images shelf
	// InUse returns the names, in any form, and the ids of images that containers were made of or Pods name; false
	// as long as that is not known, and nothing is removed.
	InUse func() (names []string, known bool)
	// Dir is on the file system of the images.
	Dir string
	// High and Low are percents of that file system: above High images are removed until it is at Low. 0: 85 and 80.
	High, Low int64
	Floor     int64         // bytes to keep free, whatever share that is
	Plenty    int64         // bytes that are enough free, whatever share that is; 0: the share alone counts
	MinAge    time.Duration // 0: 2 min
	Period    time.Duration // between looks at the file system; 0: 10 s
	// Event records something about the node; nil: nothing is recorded.
	Event func(eventType, reason, message string)
	Log   *slog.Logger
}

// Collector removes images. Its methods may be called by several goroutines.
type Collector struct {
	cfg Config

	mu     sync.Mutex      // held while images are removed
	used   map[string]bool // images in use when that was looked at last
	failed bool            // it was told that not enough can be freed
}

// New returns a Collector that has not begun to work.
func New(cfg Config) *Collector {
	if cfg.High == 0 {
		cfg.High = defaultHigh
	}
	if cfg.Low == 0 {
		cfg.Low = min(defaultLow, cfg.High)
	}
	if cfg.MinAge == 0 {
		cfg.MinAge = defaultMinAge
	}
	if cfg.Period == 0 {
		cfg.Period = defaultPeriod
	}
	if cfg.Event == nil {
		cfg.Event = func(string, string, string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Collector{cfg: cfg}
}

// Run watches over the file system until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	ticker := time.NewTicker(c.cfg.Period)
	defer ticker.Stop()
	noted := time.Now()
	for {
		if err := c.look(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("collect images", "err", err)
		}
		if time.Since(noted) >= notePeriod {
			noted = time.Now()
			if err := c.note(ctx); err != nil && ctx.Err() == nil {
				c.cfg.Log.Warn("note which images are used", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// look frees the disk when it is nearly full.
func (c *Collector) look(ctx context.Context) error {
	fs, err := stats.ReadFileSystem(c.cfg.Dir)
	if err != nil {
		return err
	}
	if !c.full(fs.Bytes) {
		c.mu.Lock()
		c.failed = false
		c.mu.Unlock()
		return nil
	}
	return c.Free(ctx, func() (bool, error) {
		fs, err := stats.ReadFileSystem(c.cfg.Dir)
		return err == nil && c.roomy(fs.Bytes), err
	})
}

// full reports whether images are to be removed.
func (c *Collector) full(l stats.Level) bool {
	return l.Available < c.cfg.Floor || l.UsedPercent() >= c.cfg.High && (c.cfg.Plenty == 0 || l.Available < c.cfg.Plenty)
}

// roomy reports whether enough were removed. It asks for more than full does, so that not every image that comes sends
// another away.
func (c *Collector) roomy(l stats.Level) bool {
	enough := l.UsedPercent() <= c.cfg.Low || c.cfg.Plenty > 0 && l.Available >= c.cfg.Plenty+c.cfg.Plenty/4
	return enough && l.Available >= c.cfg.Floor+c.cfg.Floor/4
}

// Free removes images, least recently used first, until enough says so or none is left to remove. When that was not
// enough it says so in an Event, once.
func (c *Collector) Free(ctx context.Context, enough func() (bool, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var done tally
	for {
		met, err := enough()
		if err != nil || met {
			c.failed = c.failed && !met
			c.told(done)
			return err
		}
		next, stay, err := c.next(ctx)
		if err != nil {
			c.told(done)
			return err
		}
		if next == nil {
			c.told(done)
			c.giveUp(stay)
			return nil
		}
		if err := c.remove(ctx, *next); err != nil {
			c.told(done)
			return err
		}
		done.images++
		done.bytes += next.bytes
	}
}

// errUnknown holds everything back at the start: an image whose Pod is not known yet looks unused.
var errUnknown = errors.New("the Pods of this node are not known yet")

// tally counts what was removed.
type tally struct {
	images int
	bytes  int64
}

// next returns the image to remove next. It looks anew each time: a Pod may have come that names one.
func (c *Collector) next(ctx context.Context) (*removal, kept, error) {
	list, err := c.cfg.Images.ListImages(ctx)
	if err != nil {
		return nil, kept{}, err
	}
	inUse, known := c.inUse()
	if !known {
		return nil, kept{}, errUnknown
	}
	removals, stay := plan(observed{now: time.Now(), images: list, inUse: inUse, minAge: c.cfg.MinAge})
	if len(removals) == 0 {
		return nil, stay, nil
	}
	return &removals[0], stay, nil
}

func (c *Collector) remove(ctx context.Context, r removal) error {
	c.cfg.Log.Info("collect images", "action", r.String())
	var errs []error
	for _, ref := range r.refs {
		errs = append(errs, c.cfg.Images.RemoveImage(ctx, ref))
	}
	return errors.Join(errs...)
}

// told records what was removed.
func (c *Collector) told(done tally) {
	if done.images > 0 {
		c.cfg.Event(corev1.EventTypeNormal, "ImagesCollected", fmt.Sprintf("removed %d unused images of %s (compressed), as the disk of %s was nearly full",
			done.images, megabytes(done.bytes), c.cfg.Dir))
	}
}

// giveUp tells, once, that what can be removed is not enough.
func (c *Collector) giveUp(stay kept) {
	if c.failed {
		return
	}
	c.failed = true
	c.cfg.Event(corev1.EventTypeWarning, "FreeDiskSpaceFailed", fmt.Sprintf("the disk of %s is nearly full and no image can be removed: %s", c.cfg.Dir, stay))
}

// note writes down which images went out of use since the last time, so that the order of use outlives a restart.
func (c *Collector) note(ctx context.Context) error {
	now, known := c.inUse()
	if !known {
		return nil
	}
	c.mu.Lock()
	before := c.used
	c.used = now
	c.mu.Unlock()
	var ended bool
	for name := range before {
		ended = ended || !now[name]
	}
	if !ended {
		return nil
	}
	list, err := c.cfg.Images.ListImages(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, img := range list {
		if (before[img.Ref] || before[img.ID]) && !now[img.Ref] && !now[img.ID] {
			errs = append(errs, c.cfg.Images.NoteUse(ctx, img.Ref))
		}
	}
	return errors.Join(errs...)
}

// inUse returns names in their full form, and ids.
func (c *Collector) inUse() (map[string]bool, bool) {
	names, known := c.cfg.InUse()
	used := map[string]bool{}
	for _, name := range names {
		used[name] = true
		if full, err := imagestore.Normalise(name); err == nil {
			used[full] = true
		}
	}
	return used, known
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
