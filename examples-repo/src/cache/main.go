// Command cache is the shop's memory: a key-value server over TCP with three commands, one per line: PING,
// GET key, INCR key. Each is answered by one line. It forgets everything when it ends.
package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
)

type cache struct {
	mu     sync.Mutex
	values map[string]int
}

func main() {
	listener, err := net.Listen("tcp", ":6379")
	if err != nil {
		log.Fatal(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		log.Print("told to stop")
		listener.Close()
	}()
	log.Print("cache listens on :6379")
	c := &cache{values: map[string]int{}}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go c.serve(conn)
	}
}

func (c *cache) serve(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if _, err := fmt.Fprintln(conn, c.answer(strings.Fields(lines.Text()))); err != nil {
			return
		}
	}
}

func (c *cache) answer(words []string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(words) == 1 && words[0] == "PING":
		return "PONG"
	case len(words) == 2 && words[0] == "GET":
		return fmt.Sprint(c.values[words[1]])
	case len(words) == 2 && words[0] == "INCR":
		c.values[words[1]]++
		return fmt.Sprint(c.values[words[1]])
	}
	return "ERR want PING, GET key or INCR key"
}
