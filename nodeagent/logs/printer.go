package logs

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// errFull ends a reading at its limit of bytes.
var errFull = errors.New("limit of bytes is reached")

// longest is how much of one line is joined before it is printed.
const longest = 256 << 10

// printer writes log lines as asked for: joined, filtered, cut.
type printer struct {
	w          *bufio.Writer
	timestamps bool
	since      time.Time
	stream     string // empty: both
	left       int64  // bytes; negative: no limit
	open       map[string]*bytes.Buffer
}

func newPrinter(w io.Writer, opts *corev1.PodLogOptions, now time.Time) *printer {
	p := &printer{w: bufio.NewWriterSize(w, 32<<10), timestamps: opts.Timestamps, left: -1, open: map[string]*bytes.Buffer{}}
	switch {
	case opts.SinceTime != nil:
		p.since = opts.SinceTime.Time
	case opts.SinceSeconds != nil:
		p.since = now.Add(-time.Duration(*opts.SinceSeconds) * time.Second)
	}
	if opts.LimitBytes != nil {
		p.left = *opts.LimitBytes
	}
	if opts.Stream != nil && *opts.Stream != corev1.LogStreamAll {
		p.stream = map[string]string{corev1.LogStreamStdout: "stdout", corev1.LogStreamStderr: "stderr"}[*opts.Stream]
	}
	return p
}

// line takes one CRI line without its newline: time, stream, tags, text.
func (p *printer) line(raw []byte) error {
	stamp, rest, ok1 := bytes.Cut(raw, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	tags, text, ok3 := bytes.Cut(rest, []byte{' '})
	if !ok1 || !ok2 || !ok3 && len(tags) == 0 {
		return nil // not a line of ours: torn by a crash
	}
	if p.stream != "" && p.stream != string(stream) {
		return nil
	}
	if !p.since.IsZero() {
		at, err := time.Parse(time.RFC3339Nano, string(stamp))
		if err != nil || at.Before(p.since) {
			return nil
		}
	}
	buffer := p.open[string(stream)]
	if buffer == nil {
		buffer = &bytes.Buffer{}
		p.open[string(stream)] = buffer
	}
	if p.timestamps && buffer.Len() == 0 {
		buffer.Write(stamp)
		buffer.WriteByte(' ')
	}
	buffer.Write(text)
	if tags[0] != 'P' {
		buffer.WriteByte('\n')
	} else if buffer.Len() < longest {
		return nil
	}
	defer buffer.Reset()
	return p.write(buffer.Bytes())
}

// partial returns a CRI line's stream and whether its text goes on in the stream's next line.
func partial(raw []byte) (stream string, more bool) {
	_, rest, _ := bytes.Cut(raw, []byte{' '})
	head, rest, _ := bytes.Cut(rest, []byte{' '})
	return string(head), len(rest) > 0 && rest[0] == 'P'
}

// flush hands on what was printed.
func (p *printer) flush() error { return p.w.Flush() }

// finish prints lines that never ended, and hands everything on.
func (p *printer) finish() error {
	for _, stream := range []string{"stdout", "stderr"} {
		if b := p.open[stream]; b != nil && b.Len() > 0 {
			if err := p.write(b.Bytes()); err != nil {
				return err
			}
		}
	}
	return p.flush()
}

func (p *printer) write(b []byte) error {
	full := p.left >= 0 && int64(len(b)) >= p.left
	if full {
		b = b[:p.left]
	}
	if _, err := p.w.Write(b); err != nil {
		return err
	}
	if full {
		return cmp.Or(p.flush(), errFull)
	}
	if p.left >= 0 {
		p.left -= int64(len(b))
	}
	return nil
}
