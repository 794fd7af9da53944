package crilog

import (
	"bytes"
	"io"
	"time"
)

// Stream names one of a container's outputs as it stands in a log line.
type Stream string

// The outputs of a container.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

const (
	maxLine   = 16 << 10 // longer lines are split into partial ones, as every CRI runtime does
	batchSize = 64 << 10 // lines are written together up to this size
)

// Copy reads src to its end and writes its lines to file. What stands after the last newline is a line, too.
func Copy(file *File, stream Stream, src io.Reader) {
	c := copier{file: file, stream: stream}
	buf := make([]byte, maxLine)
	held := 0
	for {
		n, err := src.Read(buf[held:])
		held = c.split(buf[:held+n], held)
		if err != nil {
			break
		}
		c.flush()
	}
	if held > 0 {
		c.line(true, buf[:held])
	}
	c.flush()
}

type copier struct {
	file   *File
	stream Stream
	batch  []byte
	count  int
}

// split takes the whole lines out of data, of which the first seen bytes hold no newline, moves the rest to its
// front and returns how long that is.
func (c *copier) split(data []byte, seen int) int {
	rest := data
	for {
		i := bytes.IndexByte(rest[seen:], '\n')
		if i < 0 {
			break
		}
		c.line(true, rest[:seen+i])
		rest, seen = rest[seen+i+1:], 0
	}
	if len(rest) == maxLine {
		c.line(false, rest)
		return 0
	}
	return copy(data, rest)
}

func (c *copier) line(whole bool, text []byte) {
	c.batch = appendLine(c.batch, time.Now(), c.stream, whole, text)
	c.count++
	if len(c.batch) >= batchSize {
		c.flush()
	}
}

func (c *copier) flush() {
	if c.count == 0 {
		return
	}
	c.file.Write(c.batch, c.count)
	c.batch, c.count = c.batch[:0], 0
}

// appendLine formats one line: "2006-01-02T15:04:05.999999999Z stdout F text".
func appendLine(dst []byte, at time.Time, stream Stream, whole bool, text []byte) []byte {
	dst = at.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, ' ')
	dst = append(dst, stream...)
	if whole {
		dst = append(dst, " F "...)
	} else {
		dst = append(dst, " P "...)
	}
	dst = append(dst, text...)
	return append(dst, '\n')
}
