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
	readSize  = 64 << 10
	batchSize = 64 << 10 // lines are written together up to this size
)

// Copy reads src to its end and writes its lines to file. What stands after the last newline is a line, too.
func Copy(file *File, stream Stream, src io.Reader) {
	c := copier{file: file, stream: stream}
	buf := make([]byte, readSize)
	held := 0
	for {
		n, err := src.Read(buf[held:])
		c.clock.read(file.now())
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
	clock  clock
	batch  []byte
	count  int
}

// split takes the whole lines out of data, of which the first seen bytes hold no newline, moves the rest to its
// front and returns how long that is: less than a longest line.
func (c *copier) split(data []byte, seen int) int {
	rest := data
	for {
		i := bytes.IndexByte(rest[seen:], '\n')
		if i < 0 {
			break
		}
		c.line(true, c.pieces(rest[:seen+i]))
		rest, seen = rest[seen+i+1:], 0
	}
	return copy(data, c.pieces(rest))
}

// pieces writes the partial lines a long line begins with and returns its end.
func (c *copier) pieces(text []byte) []byte {
	for len(text) >= maxLine {
		c.line(false, text[:maxLine])
		text = text[maxLine:]
	}
	return text
}

func (c *copier) line(whole bool, text []byte) {
	c.batch = appendLine(c.batch, c.clock.next(), c.stream, whole, text)
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
func appendLine(dst, stamp []byte, stream Stream, whole bool, text []byte) []byte {
	dst = append(dst, stamp...)
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

// clock gives the lines of one stream their times. Lines that were read together are a nanosecond apart, so that the
// order of times is the order of lines.
type clock struct {
	nanos  int64 // of the last line, since 1970
	second int64 // that the text is of
	text   []byte
}

// read sets the clock. It goes back only when the machine's clock was set back.
func (c *clock) read(now time.Time) {
	if n := now.UnixNano(); n > c.nanos || c.nanos-n > int64(time.Second) {
		c.nanos = n
	}
}

// at returns the text of a time.
func (c *clock) at(t time.Time) []byte {
	c.nanos = t.UnixNano() - 1
	return c.next()
}

// next returns the time of the next line: "2006-01-02T15:04:05.000000001Z". It is valid until the next call.
func (c *clock) next() []byte {
	c.nanos++
	if second := c.nanos / int64(time.Second); second != c.second || c.text == nil {
		c.second = second
		c.text = time.Unix(second, 0).UTC().AppendFormat(c.text[:0], "2006-01-02T15:04:05.000000000Z")
	}
	rest := c.nanos % int64(time.Second)
	for i := len(c.text) - 2; i > len(c.text)-11; i-- {
		c.text[i] = byte('0' + rest%10)
		rest /= 10
	}
	return c.text
}
