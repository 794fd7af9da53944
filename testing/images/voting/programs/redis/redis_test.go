package redis

import (
	"bufio"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// answering returns a connection to a server that gives one answer, and what it was asked.
func answering(t *testing.T, answer string) (*Conn, <-chan string) {
	t.Helper()
	client, server := net.Pipe()
	asked := make(chan string, 1)
	go func() {
		defer server.Close()
		request := make([]byte, 1<<10)
		n, err := server.Read(request)
		if err == nil {
			_, err = io.WriteString(server, answer)
		}
		if err != nil {
			t.Error(err)
		}
		asked <- string(request[:n])
	}()
	t.Cleanup(func() { client.Close() })
	return &Conn{Conn: client, in: bufio.NewReader(client)}, asked
}

func TestPushSendsTheCommand(t *testing.T) {
	conn, asked := answering(t, ":1\r\n")
	if err := conn.Push("votes", "a b"); err != nil {
		t.Fatal(err)
	}
	if got, want := <-asked, "*3\r\n$5\r\nRPUSH\r\n$5\r\nvotes\r\n$3\r\na b\r\n"; got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestPop(t *testing.T) {
	for name, c := range map[string]struct {
		answer, value string
		found, broken bool
	}{
		"a value":                 {answer: "*2\r\n$5\r\nvotes\r\n$4\r\na\r\nb\r\n", value: "a\r\nb", found: true},
		"no value":                {answer: "*-1\r\n"},
		"an answer cut off":       {answer: "*2\r\n$5\r\nvotes\r\n$4\r\na", broken: true},
		"an answer without sense": {answer: "?\r\n", broken: true},
		"a string too long":       {answer: "$1099511627776\r\n", broken: true},
	} {
		t.Run(name, func(t *testing.T) {
			conn, _ := answering(t, c.answer)
			value, found, err := conn.Pop("votes", time.Second)
			if value != c.value || found != c.found || (err != nil) != c.broken {
				t.Errorf("got %q, %v, %v", value, found, err)
			}
		})
	}
}

func TestRefusalIsAnError(t *testing.T) {
	conn, _ := answering(t, "-WRONGTYPE no list\r\n")
	var refused Error
	if err := conn.Push("votes", "a"); !errors.As(err, &refused) || refused != "WRONGTYPE no list" {
		t.Errorf("got %v", err)
	}
}
