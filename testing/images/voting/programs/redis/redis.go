// Package redis speaks as much of redis' protocol (RESP2, https://redis.io/docs/latest/develop/reference/protocol-spec)
// as a list of votes needs.
package redis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// longest is the most bytes one string of an answer may have.
const longest = 1 << 20

// Conn is a connection to a server. After an error it is of no more use, unless the error is an Error.
type Conn struct {
	net.Conn
	in *bufio.Reader
}

// Error is what the server said of a command it refused.
type Error string

func (e Error) Error() string { return "redis: " + string(e) }

// Dial connects to "host:port".
func Dial(ctx context.Context, address string) (*Conn, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: conn, in: bufio.NewReader(conn)}, nil
}

// Push appends a value to a list.
func (c *Conn) Push(list, value string) error {
	_, err := c.do(5*time.Second, "RPUSH", list, value)
	return err
}

// Pop takes the first value of a list, and waits for one up to a time of at least a second. found says whether there
// was one.
func (c *Conn) Pop(list string, wait time.Duration) (value string, found bool, err error) {
	answer, err := c.do(wait+5*time.Second, "BLPOP", list, strconv.Itoa(int(wait.Seconds())))
	if err != nil || len(answer) < 2 {
		return "", false, err
	}
	return answer[1], true, nil
}

// do sends a command and returns the strings of its answer.
func (c *Conn) do(patience time.Duration, words ...string) ([]string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	var command strings.Builder
	fmt.Fprintf(&command, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&command, "$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(c, command.String()); err != nil {
		return nil, fmt.Errorf("%s: %w", words[0], err)
	}
	answer, err := c.read()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", words[0], err)
	}
	return answer, nil
}

// read reads one answer: a simple string, a number, a string or an array of those.
func (c *Conn) read() ([]string, error) {
	line, err := c.in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, errors.New("the answer is empty")
	}
	text := line[1:]
	switch line[0] {
	case '+', ':':
		return []string{text}, nil
	case '-':
		return nil, Error(text)
	}
	n, err := strconv.Atoi(text)
	if err != nil || n > longest {
		return nil, fmt.Errorf("the answer begins with %q", line)
	}
	if n < 0 {
		return nil, nil // there is no value
	}
	if line[0] == '$' {
		data := make([]byte, n+2)
		if _, err := io.ReadFull(c.in, data); err != nil {
			return nil, err
		}
		return []string{string(data[:n])}, nil
	}
	if line[0] != '*' {
		return nil, fmt.Errorf("the answer begins with %q", line)
	}
	var all []string
	for range n {
		part, err := c.read()
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}
