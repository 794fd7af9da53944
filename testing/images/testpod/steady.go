package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lineSize is the length of a line of steady, its newline included.
const lineSize = 100

// steady writes numbered lines at a rate in bytes per second until a file appears, and never waits for its output:
// when it is full it counts that and comes back. The last line is its own account.
func steady(args []string) error {
	rate, err := strconv.Atoi(arg(args, 0, "1000000"))
	if err != nil {
		return err
	}
	stop := arg(args, 1, "/stop/now")
	if err := unix.SetNonblock(1, true); err != nil {
		return err
	}
	s := steadily{began: time.Now(), rate: rate}
	for {
		s.catchUp()
		if _, err := os.Stat(stop); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := unix.SetNonblock(1, false); err != nil {
		return err
	}
	room, err := unix.FcntlInt(1, unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return err
	}
	fmt.Printf("wrote %d lines, found the pipe full %d times%s, longest write %s, the pipe holds %d bytes\n", s.written, s.full, s.where, s.longest.Round(time.Microsecond), room)
	return nil
}

type steadily struct {
	began   time.Time
	rate    int
	written int
	full    int
	where   string // line numbers at which the pipe was found full, some
	longest time.Duration
}

// catchUp writes what is due, in pieces that a pipe takes whole or not at all, and no more at once than twice what is
// due in one round: a machine too busy to run this program is no fault of whoever reads.
func (s *steadily) catchUp() {
	due := int(time.Since(s.began).Seconds() * float64(s.rate) / lineSize)
	due = min(due, s.written+max(s.rate/lineSize/50, 1))
	for s.written < due {
		var piece []byte
		n := min(unix.PathMax/lineSize, due-s.written)
		for i := range n {
			number := fmt.Sprintf("%010d ", s.written+i)
			piece = append(append(append(piece, number...), strings.Repeat("x", lineSize-1-len(number))...), '\n')
		}
		start := time.Now()
		_, err := unix.Write(1, piece)
		s.longest = max(s.longest, time.Since(start))
		if errors.Is(err, unix.EAGAIN) {
			if s.full++; s.full < 20 {
				s.where += fmt.Sprintf(" %d@%s", s.written, time.Since(s.began).Round(time.Millisecond))
			}
			return
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		s.written += n
	}
}
